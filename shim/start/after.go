package start

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/shim/libct"
)

// afterRestoreTimeout bounds all actions after a restore together: Start waits
// for them.
const afterRestoreTimeout = 30 * time.Second

// afterRestore does what the annotation asks for, in its order, while the
// restored program runs already and nobody has been told of it yet. An action
// that fails is a failed restore.
func (i *Init) afterRestore(ctx context.Context, c *libct.Container, p *libct.Process) error {
	if len(i.settings.AfterRestore) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, afterRestoreTimeout)
	defer cancel()
	for _, a := range i.settings.AfterRestore {
		var err error
		switch {
		case a.Exec != nil:
			err = i.run(ctx, c, a.Exec)
		case a.Comm != "":
			err = signalNamed(c, a.Comm, a.Signal)
		default:
			err = p.Signal(a.Signal)
		}
		if err != nil {
			return fmt.Errorf("after the restore, %s: %w", a, err)
		}
	}
	i.rec.phase("after-restore")
	return nil
}

// signalNamed sends sig to the container's processes of that name.
func signalNamed(c *libct.Container, comm string, sig unix.Signal) error {
	pids, err := c.PIDs()
	if err != nil {
		return err
	}
	found := false
	for _, pid := range pids {
		name, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
		if err != nil || strings.TrimSuffix(string(name), "\n") != comm {
			continue // it may have ended meanwhile
		}
		found = true
		if err := unix.Kill(pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	if !found {
		return fmt.Errorf("no process of the container is named %q: %w", comm, errdefs.ErrNotFound)
	}
	return nil
}

// run executes a command in the container, as its process's user and with its
// environment, and waits for it. What it writes is told if it fails.
func (i *Init) run(ctx context.Context, c *libct.Container, args []string) error {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	spec := *i.oci.Process
	spec.Args, spec.Terminal, spec.ConsoleSize = args, false, nil
	p, err := c.Exec(ctx, &spec, libct.Files{Stdin: null, Stdout: w, Stderr: w})
	w.Close()
	if err != nil {
		return err
	}
	said := make(chan []byte, 1)
	go func() { said <- tail(r, maxSaid) }()
	kill := context.AfterFunc(ctx, func() { _ = p.Signal(unix.SIGKILL) })
	defer kill()
	status, err := p.Wait()
	// A process that it left behind may hold the pipe open for ever.
	if derr := r.SetReadDeadline(time.Now().Add(drainTime)); derr != nil {
		return errors.Join(err, derr)
	}
	output := <-said
	switch {
	case err != nil:
		return err
	case ctx.Err() != nil:
		return fmt.Errorf("it did not end in time; it said %q: %w", output, ctx.Err())
	case status != 0:
		return fmt.Errorf("it ended with status %d; it said %q", status, output)
	}
	return nil
}

const (
	// maxSaid is how much of a command's output goes into an error, in bytes.
	maxSaid = 512
	// drainTime is how long the rest of its output is waited for.
	drainTime = 100 * time.Millisecond
)

// tail reads r to its end or to its deadline and returns the last n bytes.
func tail(r io.Reader, n int) []byte {
	var last []byte
	b := make([]byte, 4096)
	for {
		got, err := r.Read(b)
		last = append(last, b[:got]...)
		last = last[max(0, len(last)-n):]
		if err != nil {
			return bytes.TrimSpace(last)
		}
	}
}

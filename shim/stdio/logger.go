package stdio

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/containerd-snap/snap/shim/inherit"
)

const (
	// loggerGrace is how long a logging program may take to end after SIGTERM.
	// containerd promises it 10 s; the stock shim gives 12.
	loggerGrace = 12 * time.Second
	// killGrace is how long the kernel may take to end a killed one.
	killGrace = 2 * time.Second
)

// logger is a running logging program, reaped by a goroutine of its own.
type logger struct {
	path  string
	cmd   *exec.Cmd
	grace time.Duration
	// done is closed when the program was reaped.
	done chan struct{}
	// err says how it ended; it may be read after done is closed.
	err error
}

// startLogger starts the logging program t and waits until it says that it is
// ready, or ctx is done.
//
// It finds the read ends of stdout and stderr as descriptors 3 and 4, and the
// pipe on which it says that it is ready as 5: a byte, or just closing it where
// t is not strict. Its environment is CONTAINER_ID and CONTAINER_NAMESPACE.
func startLogger(ctx context.Context, t target, id, namespace string, stdout, stderr *os.File) (_ *logger, err error) {
	ready, readyW, err := newPipe(endRead, os.Geteuid(), os.Getegid())
	if err != nil {
		return nil, err
	}
	defer ready.Close()
	defer readyW.Close()

	// The program outlives the request that starts it.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), t.path, t.args...)
	cmd.Env = []string{"CONTAINER_ID=" + id, "CONTAINER_NAMESPACE=" + namespace}
	cmd.ExtraFiles = []*os.File{stdout, stderr, readyW}
	done := inherit.Guard()
	err = cmd.Start()
	done()
	if err != nil {
		return nil, fmt.Errorf("start logging program %s: %w", t.path, err)
	}
	l := &logger{path: t.path, cmd: cmd, grace: loggerGrace, done: make(chan struct{})}
	go l.reap()
	readyW.Close()

	if err := waitReady(ctx, ready, t.strict); err != nil {
		err = fmt.Errorf("wait for logging program %s to be ready: %w", t.path, err)
		l.cmd.Process.Kill()
		return nil, errors.Join(err, l.killed())
	}
	return l, nil
}

func waitReady(ctx context.Context, ready *os.File, strict bool) error {
	defer interrupt(ctx, ready)()
	n, err := ready.Read(make([]byte, 1))
	switch {
	case n > 0:
		return nil
	case errors.Is(err, io.EOF) && strict:
		return errors.New("it closed descriptor 5 without writing to it; it may have crashed")
	case errors.Is(err, io.EOF):
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	default:
		return err
	}
}

// interrupt makes reads of f fail when ctx is done, until the returned function is called.
func interrupt(ctx context.Context, f *os.File) (stop func() bool) {
	return context.AfterFunc(ctx, func() { f.SetReadDeadline(time.Unix(1, 0)) })
}

func (l *logger) reap() {
	l.err = l.cmd.Wait()
	close(l.done)
}

// wait returns when the program has ended by itself, which it does after the
// last process that writes to it, or when ctx is done.
func (l *logger) wait(ctx context.Context) error {
	select {
	case <-l.done:
		if l.err != nil {
			return fmt.Errorf("run logging program %s: %w", l.path, l.err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for logging program %s to read everything and end: %w", l.path, context.Cause(ctx))
	}
}

// stop ends the program: SIGTERM, and SIGKILL if it does not end within its grace.
func (l *logger) stop() error {
	select {
	case <-l.done:
		return nil
	default:
	}
	if err := l.cmd.Process.Signal(syscall.SIGTERM); err == nil {
		timer := time.NewTimer(l.grace)
		defer timer.Stop()
		select {
		case <-l.done:
			return nil
		case <-timer.C:
		}
	}
	l.cmd.Process.Kill()
	if err := l.killed(); err != nil {
		return err
	}
	return fmt.Errorf("stop logging program %s: it ignored SIGTERM for %v and was killed: end it when descriptors 3 and 4 are closed", l.path, l.grace)
}

// killed waits until the killed program was reaped.
func (l *logger) killed() error {
	timer := time.NewTimer(killGrace)
	defer timer.Stop()
	select {
	case <-l.done:
		return nil
	case <-timer.C:
		return fmt.Errorf("reap logging program %s (pid %d): still there %v after SIGKILL", l.path, l.cmd.Process.Pid, killGrace)
	}
}

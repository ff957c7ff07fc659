package integration

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// nullIO is for tasks whose streams nobody wants.
var nullIO cio.Creator = cio.NullIO

// closeStdin asks for the end of a process's input.
var closeStdin client.IOCloserOpts = client.WithStdinCloser

// attach opens a running task's streams anew.
func attach(t *testing.T, c *container) (*output, io.WriteCloser) {
	t.Helper()
	out := &output{}
	r, w := io.Pipe()
	task, err := c.Container.Task(testContext(t), cio.NewAttach(cio.WithStreams(r, out, out)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.Close()
		task.IO().Cancel()
	})
	return out, w
}

func TestExec(t *testing.T) {
	t.Parallel()
	execs(start(t, shared, probeOf()))
}

// execs checks exec'd processes of all sorts in a container that runs the probe.
func execs(c *container) {
	t := c.T
	t.Helper()
	if out, code := c.Exec("sh", "-c", "echo out; exit 42"); out != "out\n" || code != 42 {
		t.Errorf("exec: %q, %d", out, code)
	}
	ctx := testContext(t)
	e := c.NewExec(true, "sh", "-c", "tty; stty -echo; while read cmd; do eval \"$cmd\"; done")
	if err := e.Start(ctx); err != nil {
		t.Fatal(err)
	}
	e.Out.WaitFor(t, "/dev/pts/")
	if err := e.Resize(ctx, 90, 30); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(e.Stdin, "stty size")
	e.Out.WaitFor(t, "30 90")
	fmt.Fprintln(e.Stdin, "exit 3")
	if s := <-e.Exit; s.ExitCode() != 3 {
		t.Errorf("exit status with a terminal: %d, %v", s.ExitCode(), s.Error())
	}
	if _, err := e.Delete(ctx); err != nil {
		t.Error(err)
	}

	k := c.NewExec(false, "sleep", "1000")
	if err := k.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Delete(ctx); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("delete of a running process: %v", err)
	}
	if err := k.Kill(ctx, unix.SIGKILL); err != nil {
		t.Error(err)
	}
	if s := <-k.Exit; s.ExitCode() != 137 {
		t.Errorf("exit status of a killed process: %d, %v", s.ExitCode(), s.Error())
	}
	if _, err := k.Delete(ctx); err != nil {
		t.Error(err)
	}

	bad := c.NewExec(false, "/nonexistent")
	if err := bad.Start(ctx); err == nil || !strings.Contains(err.Error(), "/nonexistent") {
		t.Errorf("exec of what does not exist: %v", err)
	}
	if _, err := bad.Delete(ctx); err != nil {
		t.Error(err)
	}
	if s := c.Status(); s != client.Running {
		t.Errorf("status of the task: %s", s)
	}
}

func TestExecsAtOnce(t *testing.T) {
	t.Parallel()
	c := start(t, shared, probeOf())
	var wg sync.WaitGroup
	var all []*execution
	for n := range 4 {
		all = append(all, c.NewExec(false, "sh", "-c", fmt.Sprintf("sleep 0.1; echo number %d; exit %d", n, n)))
	}
	for n, e := range all {
		wg.Go(func() {
			if err := e.Start(t.Context()); err != nil {
				t.Error(err)
				return
			}
			s := <-e.Exit
			e.IO().Wait()
			if want := fmt.Sprintf("number %d\n", n); s.ExitCode() != uint32(n) || e.Out.String() != want {
				t.Errorf("exec %d: %q, %d, %v", n, e.Out, s.ExitCode(), s.Error())
			}
			if _, err := e.Delete(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// TestExecEndsWithInit: what was exec'd ends with the task's init.
func TestExecEndsWithInit(t *testing.T) {
	t.Parallel()
	c := start(t, shared, probeOf())
	e := c.NewExec(false, "sleep", "1000")
	if err := e.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	c.Kill(unix.SIGKILL)
	if got := c.Wait(); got != 137 {
		t.Errorf("exit status %d", got)
	}
	if s := <-e.Exit; s.ExitCode() != 137 {
		t.Errorf("exit status of the exec'd process: %d, %v", s.ExitCode(), s.Error())
	}
}

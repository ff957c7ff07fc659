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
	task, err := c.Task(testContext(t), cio.NewAttach(cio.WithStreams(r, out, out)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.Close()
		task.IO().Cancel()
	})
	return out, w
}

// execution is a process exec'd by a test.
type execution struct {
	client.Process
	out   *output
	stdin io.WriteCloser
	exit  <-chan client.ExitStatus
}

// newExec announces a process in a container.
func (c *container) newExec(terminal bool, args ...string) *execution {
	c.t.Helper()
	ctx := testContext(c.t)
	sp, err := c.Spec(ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	p := *sp.Process
	p.Args, p.Terminal = args, terminal
	e := &execution{out: &output{}}
	var stdin io.Reader
	stdin, e.stdin = io.Pipe()
	streams := []cio.Opt{cio.WithStreams(stdin, e.out, e.out), cio.WithFIFODir(c.node.Dir)}
	if terminal {
		streams = append(streams, cio.WithTerminal)
	}
	if e.Process, err = c.task.Exec(ctx, fmt.Sprintf("e%d", serial.Add(1)), &p, cio.NewCreator(streams...)); err != nil {
		c.t.Fatal(err)
	}
	if e.exit, err = e.Wait(ctx); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { e.stdin.Close() })
	return e
}

func TestExec(t *testing.T) {
	t.Parallel()
	execs(start(t, shared, probeOf()))
}

// execs checks exec'd processes of all sorts in a container that runs the probe.
func execs(c *container) {
	t := c.t
	t.Helper()
	if out, code := c.exec("sh", "-c", "echo out; exit 42"); out != "out\n" || code != 42 {
		t.Errorf("exec: %q, %d", out, code)
	}
	ctx := testContext(t)
	e := c.newExec(true, "sh", "-c", "tty; stty -echo; while read cmd; do eval \"$cmd\"; done")
	if err := e.Start(ctx); err != nil {
		t.Fatal(err)
	}
	e.out.waitFor(t, "/dev/pts/")
	if err := e.Resize(ctx, 90, 30); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(e.stdin, "stty size")
	e.out.waitFor(t, "30 90")
	fmt.Fprintln(e.stdin, "exit 3")
	if s := <-e.exit; s.ExitCode() != 3 {
		t.Errorf("exit status with a terminal: %d, %v", s.ExitCode(), s.Error())
	}
	if _, err := e.Delete(ctx); err != nil {
		t.Error(err)
	}

	k := c.newExec(false, "sleep", "1000")
	if err := k.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Delete(ctx); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("delete of a running process: %v", err)
	}
	if err := k.Kill(ctx, unix.SIGKILL); err != nil {
		t.Error(err)
	}
	if s := <-k.exit; s.ExitCode() != 137 {
		t.Errorf("exit status of a killed process: %d, %v", s.ExitCode(), s.Error())
	}
	if _, err := k.Delete(ctx); err != nil {
		t.Error(err)
	}

	bad := c.newExec(false, "/nonexistent")
	if err := bad.Start(ctx); err == nil || !strings.Contains(err.Error(), "/nonexistent") {
		t.Errorf("exec of what does not exist: %v", err)
	}
	if _, err := bad.Delete(ctx); err != nil {
		t.Error(err)
	}
	if s := c.status(); s != client.Running {
		t.Errorf("status of the task: %s", s)
	}
}

func TestExecsAtOnce(t *testing.T) {
	t.Parallel()
	c := start(t, shared, probeOf())
	var wg sync.WaitGroup
	var all []*execution
	for n := range 4 {
		all = append(all, c.newExec(false, "sh", "-c", fmt.Sprintf("sleep 0.1; echo number %d; exit %d", n, n)))
	}
	for n, e := range all {
		wg.Go(func() {
			if err := e.Start(t.Context()); err != nil {
				t.Error(err)
				return
			}
			s := <-e.exit
			e.IO().Wait()
			if want := fmt.Sprintf("number %d\n", n); s.ExitCode() != uint32(n) || e.out.String() != want {
				t.Errorf("exec %d: %q, %d, %v", n, e.out, s.ExitCode(), s.Error())
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
	e := c.newExec(false, "sleep", "1000")
	if err := e.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	c.kill(unix.SIGKILL)
	if got := c.wait(); got != 137 {
		t.Errorf("exit status %d", got)
	}
	if s := <-e.exit; s.ExitCode() != 137 {
		t.Errorf("exit status of the exec'd process: %d, %v", s.ExitCode(), s.Error())
	}
}

// exec runs a command in the container and returns its output and exit status.
func (c *container) exec(args ...string) (string, uint32) {
	c.t.Helper()
	ctx := testContext(c.t)
	sp, err := c.Spec(ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	p := *sp.Process
	p.Args, p.Terminal = args, false
	var out output
	e, err := c.task.Exec(ctx, fmt.Sprintf("e%d", serial.Add(1)), &p, cio.NewCreator(cio.WithStreams(nil, &out, &out), cio.WithFIFODir(c.node.Dir)))
	if err != nil {
		c.t.Fatal(err)
	}
	exit, err := e.Wait(ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := e.Start(ctx); err != nil {
		c.t.Fatal(err)
	}
	s := <-exit
	if err := s.Error(); err != nil {
		c.t.Fatal(err)
	}
	e.IO().Wait()
	if _, err := e.Delete(ctx); err != nil {
		c.t.Fatal(err)
	}
	return out.String(), s.ExitCode()
}

// mustExec runs a command that must succeed.
func (c *container) mustExec(args ...string) string {
	c.t.Helper()
	out, code := c.exec(args...)
	if code != 0 {
		c.t.Fatalf("%s: exec %q: exit status %d: %s", c.ID(), args, code, out)
	}
	return out
}

package integration

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/test/harness"
)

// bounce kills containerd, does what is to happen meanwhile, and starts it again.
func bounce(t *testing.T, n *harness.Node, meanwhile func()) {
	t.Helper()
	if err := n.Kill(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if meanwhile != nil {
		meanwhile()
	}
	if err := n.Restart(testContext(t)); err != nil {
		t.Fatal(err)
	}
}

// rewait waits for the task again: what waited broke off with containerd.
func rewait(c *container) {
	c.T.Helper()
	exit, err := c.Task.Wait(context.WithoutCancel(c.T.Context()))
	if err != nil {
		c.T.Fatal(err)
	}
	c.Exit = exit
}

// TestContainerdKilled kills containerd in each phase of a task's life. When it
// is back, the task is as it was, and goes on from there.
func TestContainerdKilled(t *testing.T) {
	t.Parallel()
	n := newNode(t, harness.Options{})
	for name, c := range map[string]struct {
		phase inPhase
		want  []client.ProcessStatus
	}{
		"created":  {whileCreated, []client.ProcessStatus{client.Created}},
		"starting": {whileStarting, []client.ProcessStatus{client.Created, client.Running}},
		"running":  {killRunning, []client.ProcessStatus{client.Running}},
		"paused":   {whilePaused, []client.ProcessStatus{client.Paused}},
	} {
		t.Run(name, func(t *testing.T) {
			w := probeOf()
			w.ID = fmt.Sprintf("bounced%d", serial())
			k := create(t, n, w)
			pid, shim := k.Pid(), parent(t, k.Pid())
			c.phase(t, k, func() { bounce(t, n, nil) })
			if s := k.Status(); !slices.Contains(c.want, s) {
				t.Fatalf("status %s, want %v", s, c.want)
			}
			rewait(k)
			r := recordEvents(t, n, w.ID)
			switch k.Status() {
			case client.Created:
				if err := k.Task.Start(testContext(t)); err != nil {
					t.Fatal(err)
				}
			case client.Paused:
				if err := k.Task.Resume(testContext(t)); err != nil {
					t.Fatal(err)
				}
			}
			if k.Status() == client.Running {
				k.Probe()
				if k.Pid() != pid || parent(t, pid) != shim {
					t.Errorf("task %d, was %d; shim %d, was %d", k.Pid(), pid, parent(t, pid), shim)
				}
				k.MustExec("true")
				k.Kill(unix.SIGTERM)
			}
			if got := k.Wait(); got != 7 {
				t.Errorf("exit status %d", got)
			}
			if s := k.DeleteTask(); s.ExitCode() != 7 {
				t.Errorf("deleted with status %d", s.ExitCode())
			}
			eventually(t, func() error {
				if all := r.all(); !slices.Contains(all, "delete") {
					return fmt.Errorf("events %q", all)
				}
				return nil
			})
			nothingLeft(t, n)
		})
	}
}

// TestEndsWithoutContainerd: what ends while containerd is away has ended, with
// its status, when it is back.
func TestEndsWithoutContainerd(t *testing.T) {
	t.Parallel()
	n := newNode(t, harness.Options{})
	c := start(t, n, probeOf())
	c.Probe()
	e := c.NewExec(false, "sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.1; done")
	if err := e.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	e.Out.WaitFor(t, "ready")
	lives := c.NewExec(false, "cat")
	if err := lives.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	bounce(t, n, func() {
		if err := unix.Kill(int(e.Pid()), unix.SIGTERM); err != nil {
			t.Error(err)
		}
		time.Sleep(300 * time.Millisecond) // events of the exits have nobody to go to
	})
	if got := endOf(t, e.Process); got != 9 {
		t.Errorf("the exec ended with %d", got)
	}
	if _, err := lives.Stdin.Write([]byte("still here\n")); err != nil {
		t.Error(err)
	}
	lives.Out.WaitFor(t, "still here")
	// A shim without a process counts as leaked for a containerd that starts, under
	// every runtime: its task is deleted, and its status is in the shim's events alone.
	r := recordEvents(t, n, c.ID())
	bounce(t, n, func() {
		if err := unix.Kill(c.Pid(), unix.SIGTERM); err != nil {
			t.Error(err)
		}
		eventually(t, func() error {
			if err := unix.Kill(c.Pid(), 0); !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("process %d is still there", c.Pid())
			}
			return nil
		})
	})
	gone(t, c)
	if all := r.exits(); slices.ContainsFunc(all, func(s string) bool { return s != "exit 7" }) {
		t.Errorf("told %q", all)
	}
	nothingLeft(t, n)
}

// endOf waits for a process's end.
func endOf(t *testing.T, p client.Process) uint32 {
	t.Helper()
	exit, err := p.Wait(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	s := <-exit
	if err := s.Error(); err != nil {
		t.Fatal(err)
	}
	return s.ExitCode()
}

// TestDeletionCutOff: a deletion during which containerd is killed can be
// finished when it is back, if it was not.
func TestDeletionCutOff(t *testing.T) {
	t.Parallel()
	n := newNode(t, harness.Options{})
	for ms := range 5 {
		k := create(t, n, probeOf())
		whileDeleting(time.Duration(4*ms)*time.Millisecond)(t, k, func() { bounce(t, n, nil) })
		s, err := k.Task.Delete(testContext(t))
		if err != nil && !errdefs.IsNotFound(err) {
			t.Fatal(err)
		}
		if err == nil && s.ExitCode() != 7 {
			t.Errorf("deleted with status %d", s.ExitCode())
		}
		nothingLeft(t, n)
	}
}

// TestBothKilled: when containerd is back and the shim is not, nothing is left
// of the task, and the container can have another.
func TestBothKilled(t *testing.T) {
	t.Parallel()
	n := newNode(t, harness.Options{})
	for name, phase := range map[string]inPhase{
		"created": whileCreated, "starting": whileStarting, "running": killRunning, "with an exec": killExec, "paused": whilePaused,
		"exited": whenExited, "in deletion": whileDeleting(2 * time.Millisecond),
	} {
		t.Run(name, func(t *testing.T) {
			w := probeOf()
			k := create(t, n, w)
			ns, shim := netns(t, k.Pid()), parent(t, k.Pid())
			phase(t, k, func() { bounce(t, n, func() { kill9(t, shim) }) })
			gone(t, k)
			noNetNS(t, ns)
			startsAgain(t, k, w)
			nothingLeftByKilled(t, n)
		})
	}
}

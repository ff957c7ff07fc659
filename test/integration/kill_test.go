package integration

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/shim/capture"
	"github.com/containerd-snap/snap/test/harness"
)

// inPhase brings a created task to a phase of its life, and kills there.
type inPhase func(t *testing.T, c *container, kill func())

func whileCreated(_ *testing.T, _ *container, kill func()) { kill() }

func whilePaused(t *testing.T, c *container, kill func()) {
	t.Helper()
	killRunning(t, c, func() {
		if err := c.Task.Pause(testContext(t)); err != nil {
			t.Fatal(err)
		}
		kill()
	})
}

// whileStarting kills when Start has been asked for.
func whileStarting(t *testing.T, c *container, kill func()) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- c.Task.Start(testContext(t)) }()
	time.Sleep(2 * time.Millisecond) // a moment in the start, whichever it is
	kill()
	<-done
}

// whenExited kills when the task has ended by itself, with status 7.
func whenExited(t *testing.T, c *container, kill func()) {
	t.Helper()
	killRunning(t, c, func() {
		c.Kill(unix.SIGTERM)
		if got := c.Wait(); got != 7 {
			t.Errorf("exit status %d", got)
		}
		kill()
	})
}

// whileDeleting kills when the ended task's deletion has been asked for.
func whileDeleting(after time.Duration) inPhase {
	return func(t *testing.T, c *container, kill func()) {
		t.Helper()
		whenExited(t, c, func() {
			done := make(chan error, 1)
			go func() {
				_, err := c.Task.Delete(testContext(t))
				done <- err
			}()
			time.Sleep(after) // a moment in the deletion, whichever it is
			kill()
			<-done
		})
	}
}

func kill9(t *testing.T, pid int) {
	t.Helper()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil && err != unix.ESRCH {
		t.Fatal(err)
	}
}

// exits are the ends of the task, not of its exec'd processes, that were told.
func (r *recording) exits() []string {
	return slices.DeleteFunc(r.all(), func(s string) bool { return !strings.HasPrefix(s, "exit ") })
}

// TestShimKilledLate goes on where TestShimKilled ends: what is told of the end
// of a task whose shim was killed is how it ended.
func TestShimKilledLate(t *testing.T) {
	t.Parallel()
	n := newNode(t, harness.Options{})
	for name, c := range map[string]struct {
		phase inPhase
		exit  string
	}{
		"starting":          {whileStarting, "exit 137"},
		"paused":            {whilePaused, "exit 137"},
		"exited":            {whenExited, "exit 7"},
		"early in deletion": {whileDeleting(0), "exit 7"},
		"in deletion":       {whileDeleting(5 * time.Millisecond), "exit 7"},
	} {
		t.Run(name, func(t *testing.T) {
			w := probeOf()
			w.ID = fmt.Sprintf("late%d", serial())
			r := recordEvents(t, n, w.ID)
			k := create(t, n, w)
			ns, shim := netns(t, k.Pid()), parent(t, k.Pid())
			c.phase(t, k, func() { kill9(t, shim) })
			gone(t, k)
			eventually(t, func() error {
				if all := r.exits(); len(all) == 0 {
					return fmt.Errorf("events %q, want an exit", r.all())
				}
				return nil
			})
			if all := r.exits(); slices.ContainsFunc(all, func(s string) bool { return s != c.exit }) {
				t.Errorf("told %q, want %q", all, c.exit)
			}
			noNetNS(t, ns)
			startsAgain(t, k, w)
			nothingLeftByKilled(t, n)
		})
	}
}

// nothingLeftByKilled is nothingLeft after a shim was killed: what it was just writing to the
// store is swept before the next capture.
func nothingLeftByKilled(t *testing.T, n *harness.Node) {
	t.Helper()
	if _, err := openStore(t, n).Sweep(); err != nil {
		t.Error(err)
	}
	nothingLeft(t, n)
}

// gone waits until containerd knows no task of the container.
func gone(t *testing.T, c *container) {
	t.Helper()
	eventually(t, func() error {
		if _, err := c.Container.Task(t.Context(), nil); !errdefs.IsNotFound(err) {
			return fmt.Errorf("task %s is still there", c.ID())
		}
		return nil
	})
}

// TestInitKilled: an init that is killed has ended by SIGKILL, whatever it did
// before; one that stands still dies when it goes on.
func TestInitKilled(t *testing.T) {
	t.Parallel()
	n := newNode(t, harness.Options{})
	for name, phase := range map[string]inPhase{
		"created": whileCreated, "starting": whileStarting, "running": killRunning, "with an exec": killExec, "paused": whilePaused,
		"in capture": killCapturing(20 * time.Millisecond),
	} {
		t.Run(name, func(t *testing.T) {
			k := create(t, n, big())
			pid := k.Pid()
			phase(t, k, func() { kill9(t, pid) })
			if k.Status() == client.Paused {
				if err := k.Task.Resume(testContext(t)); err != nil {
					t.Fatal(err)
				}
			}
			if got := k.Wait(); got != 137 {
				t.Errorf("exit status %d", got)
			}
			if s := k.DeleteTask(); s.ExitCode() != 137 {
				t.Errorf("deleted with status %d", s.ExitCode())
			}
			nothingLeft(t, n)
		})
	}
}

// TestExecKilled: only that process ends.
func TestExecKilled(t *testing.T) {
	t.Parallel()
	c := start(t, shared, probeOf())
	before := c.Probe()
	for name, paused := range map[string]bool{"running": false, "paused": true} {
		e := c.NewExec(false, "sleep", "1000")
		if err := e.Start(testContext(t)); err != nil {
			t.Fatal(err)
		}
		if paused {
			if err := c.Task.Pause(testContext(t)); err != nil {
				t.Fatal(err)
			}
		}
		kill9(t, int(e.Pid()))
		if paused {
			if err := c.Task.Resume(testContext(t)); err != nil {
				t.Fatal(err)
			}
		}
		if got := endOf(t, e.Process); got != 137 {
			t.Errorf("%s: exit status %d", name, got)
		}
		if _, err := e.Delete(testContext(t)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		before = c.GoesOn(before)
	}
}

// TestFirstOfPodGone: a pod's shim was started for its first container, and
// serves the others when that is gone.
func TestFirstOfPodGone(t *testing.T) {
	t.Parallel()
	n := newNode(t, harness.Options{})
	w := probeOf()
	w.Annotations = map[string]string{groupAnnotation: "pod"}
	first := start(t, n, w)
	second := start(t, n, w)
	before := second.Probe()
	shim := parent(t, second.Pid())
	first.Kill(unix.SIGKILL)
	first.Wait()
	first.DeleteTask()
	if err := first.Remove(); err != nil {
		t.Fatal(err)
	}
	third := start(t, n, w)
	if got := parent(t, third.Pid()); got != shim || parent(t, second.Pid()) != shim {
		t.Errorf("the third container's shim is %d, the second's %d", got, shim)
	}
	third.MustExec("true")
	e := second.MustCapture(capture.Request{})
	clone := start(t, n, w)
	clone.MustRestored(e)
	clone.GoesOn(before)
}

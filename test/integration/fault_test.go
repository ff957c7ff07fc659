package integration

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/shim/capture"
	"github.com/containerd-snap/snap/test/harness"
)

// big wants a probe whose memory makes captures and restores take their time.
func big() want {
	return want{Image: probeImage, Args: []string{"/bin/probe", "-memory", "64"}}
}

// TestShimKilled kills the shim in each phase of a task's life: containerd hears
// of the exit, and nothing is left.
func TestShimKilled(t *testing.T) {
	t.Parallel()
	n := newNode(t, harness.Options{})
	for name, c := range map[string]struct {
		// captured: there is a checkpoint to start from.
		captured bool
		// during is called with the created task; it kills the shim.
		during func(t *testing.T, c *container, kill func())
	}{
		"created":          {during: func(_ *testing.T, _ *container, kill func()) { kill() }},
		"held":             {captured: true, during: func(_ *testing.T, _ *container, kill func()) { kill() }},
		"running":          {during: killRunning},
		"restored":         {captured: true, during: killRunning},
		"with an exec":     {during: killExec},
		"early in capture": {during: killCapturing(0)},
		"in capture":       {during: killCapturing(40 * time.Millisecond)},
		"late in capture":  {during: killCapturing(100 * time.Millisecond)},
		"early in restore": {captured: true, during: killRestoring(0)},
		"in restore":       {captured: true, during: killRestoring(10 * time.Millisecond)},
		"late in restore":  {captured: true, during: killRestoring(30 * time.Millisecond)},
	} {
		t.Run(name, func(t *testing.T) {
			w := big()
			entries := 0
			if c.captured {
				a := start(t, n, w)
				a.Probe()
				a.MustCapture(capture.Request{Stop: true})
				a.Wait()
				a.DeleteTask()
				entries = 1
			}
			w.ID = fmt.Sprintf("killed%d", serial())
			r := recordEvents(t, n, w.ID)
			k := create(t, n, w)
			ns, shim := netns(t, k.Pid()), parent(t, k.Pid())
			c.during(t, k, func() {
				if err := unix.Kill(shim, unix.SIGKILL); err != nil {
					t.Error(err)
				}
			})
			eventually(t, func() error {
				if !slices.ContainsFunc(r.all(), func(s string) bool { return strings.HasPrefix(s, "exit ") }) {
					return fmt.Errorf("events %q, want an exit", r.all())
				}
				return nil
			})
			eventually(t, func() error {
				if _, err := k.Container.Task(t.Context(), nil); !errdefs.IsNotFound(err) {
					return fmt.Errorf("the task of the killed shim: %w", err)
				}
				return nil
			})
			// What a killed capture leaves goes with the next one, or with this.
			s := openStore(t, n)
			if _, err := s.Sweep(); err != nil {
				t.Error(err)
			}
			noNetNS(t, ns)
			startsAgain(t, k, w)
			nothingLeft(t, n)
			all, err := s.List()
			if err != nil || len(all) > entries && !strings.Contains(name, "late") {
				t.Errorf("%d checkpoints, %v", len(all), err)
			}
			for _, e := range all {
				if err := s.Verify(testContext(t), e, nil); err != nil {
					t.Error(err)
				}
				if err := s.Remove(e.Digest); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// startsAgain checks that the container can have another task: what is left of
// the killed shim, its socket, as with the stock one, is not in the way.
func startsAgain(t *testing.T, c *container, w want) {
	t.Helper()
	left, err := c.Node.Settle(context.WithoutCancel(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	if len(left.Processes)+len(left.Mounts)+len(left.Cgroups) > 0 || len(left.Files) > 1 {
		t.Errorf("something is left:\n%s", left)
	}
	if err := c.Create(w); err != nil {
		t.Fatal(err)
	}
	if err := c.Task.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	c.Probe()
	c.Kill(unix.SIGKILL)
	c.Wait()
	c.DeleteTask()
}

func killRunning(t *testing.T, c *container, kill func()) {
	t.Helper()
	if err := c.Task.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	c.Probe()
	kill()
}

func killExec(t *testing.T, c *container, kill func()) {
	t.Helper()
	if err := c.Task.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := c.NewExec(false, "sleep", "1000").Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	kill()
}

// killCapturing kills the shim when CRIU has been dumping for a while.
func killCapturing(after time.Duration) func(*testing.T, *container, func()) {
	return func(t *testing.T, c *container, kill func()) {
		t.Helper()
		if err := c.Task.Start(testContext(t)); err != nil {
			t.Fatal(err)
		}
		c.Probe()
		done := make(chan error, 1)
		go func() {
			_, err := c.Capture(capture.Request{})
			done <- err
		}()
		waitForCRIU(t, c)
		time.Sleep(after) // a moment in the dump, whichever it is
		kill()
		<-done
	}
}

// killRestoring kills the shim a while after Start has begun.
func killRestoring(after time.Duration) func(*testing.T, *container, func()) {
	return func(t *testing.T, c *container, kill func()) {
		t.Helper()
		done := make(chan error, 1)
		go func() { done <- c.Task.Start(testContext(t)) }()
		time.Sleep(after) // a moment in the restore, whichever it is
		kill()
		<-done
	}
}

// waitForCRIU waits until the container's shim runs CRIU, and returns its pid.
func waitForCRIU(t *testing.T, c *container) int {
	t.Helper()
	pid := 0
	eventually(t, func() error {
		if pid = criuOf(c, false); pid == 0 {
			return fmt.Errorf("%s: the shim runs no CRIU", c.ID())
		}
		return nil
	})
	return pid
}

// TestCRIUKilledInCapture: the capture fails, and the program goes on. In rare
// cases it does not, and nobody but CRIU could help it: a thread that CRIU was
// just about to stop, having made it execute a system call, ends in the trap
// that nobody awaits any more. Its end must then be told like any other.
func TestCRIUKilledInCapture(t *testing.T) {
	t.Parallel()
	n := newNode(t, harness.Options{})
	var c *container
	var before probeState
	failed, died := 0, 0
	for _, ms := range []int{0, 0, 1, 2, 5, 10, 15, 20, 30, 40, 60, 80} {
		if c == nil {
			c = start(t, n, big())
			before = c.Probe()
		}
		done := make(chan error, 1)
		go func() {
			e, err := c.Capture(capture.Request{})
			if err == nil {
				err = openStore(t, n).Remove(e.Digest)
			} else {
				failed++
			}
			done <- err
		}()
		pid := waitForCRIU(t, c)
		time.Sleep(time.Duration(ms) * time.Millisecond)
		_ = unix.Kill(pid, unix.SIGKILL) // it may have ended by now
		err := <-done
		storeIsEmpty(t, n)
		if !survives(c) {
			died++
			t.Logf("the program died %d ms after CRIU had begun: %v", ms, err)
			c.DeleteTask()
			nothingLeft(t, n)
			c = nil
			continue
		}
		before = c.GoesOn(before)
		if s := c.Status(); s != client.Running {
			t.Errorf("after %d ms: status %s, %v", ms, s, err)
		}
	}
	if failed == 0 {
		t.Error("CRIU was killed too late in every capture")
	}
	if died > 3 {
		t.Errorf("the program died %d times", died)
	}
	if c == nil {
		c = start(t, n, big())
		before = c.Probe()
	}
	e := c.MustCapture(capture.Request{})
	clone := start(t, n, big())
	clone.MustRestored(e)
	clone.GoesOn(before)
}

// survives says whether the program answers; if not, its exit has been told.
func survives(c *container) (alive bool) {
	c.T.Helper()
	eventually(c.T, func() error {
		if len(c.Exit) > 0 {
			return nil
		}
		_, err := c.Ask()
		alive = err == nil
		return err
	})
	return alive
}

// TestCRIUKilledInRestore: at whatever moment, the task runs in the end.
func TestCRIUKilledInRestore(t *testing.T) {
	t.Parallel()
	n := newNode(t, harness.Options{})
	a := start(t, n, big())
	before := a.Probe()
	e := a.MustCapture(capture.Request{})
	for i := range 8 {
		c := create(t, n, big())
		pid := criuOf(c, true)
		done := make(chan error, 1)
		go func() { done <- c.Task.Start(testContext(t)) }()
		time.Sleep(time.Duration(i) * 5 * time.Millisecond)
		_ = unix.Kill(pid, unix.SIGKILL) // it may have ended by now
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		now := c.Probe()
		if r := c.Record(); r.Outcome == checkpoint.Restore != (now.Token == before.Token) {
			t.Errorf("outcome %s, token %s, was %s", r.Outcome, now.Token, before.Token)
		}
		c.InOwnCgroup()
		c.Kill(unix.SIGTERM)
		if got := c.Wait(); got != 7 {
			t.Errorf("exit status %d", got)
		}
		c.DeleteTask()
		if err := openStore(t, n).Clear(e.Digest); err != nil {
			t.Fatal(err)
		}
	}
	a.Kill(unix.SIGKILL)
	a.Wait()
	a.DeleteTask()
	nothingLeft(t, n)
}

// TestKilledInRestore: a task that is killed while it is being restored ends,
// and does not boot instead.
func TestKilledInRestore(t *testing.T) {
	t.Parallel()
	n := newNode(t, harness.Options{})
	a := start(t, n, big())
	a.Probe()
	a.MustCapture(capture.Request{Stop: true})
	a.Wait()
	a.DeleteTask()
	for i := range 8 {
		c := create(t, n, big())
		done := make(chan error, 1)
		go func() { done <- c.Task.Start(testContext(t)) }()
		time.Sleep(time.Duration(i) * 5 * time.Millisecond)
		c.Kill(unix.SIGKILL)
		err := <-done
		if got := c.Wait(); got != 137 {
			t.Errorf("exit status %d; start: %v", got, err)
		}
		if strings.Contains(c.Out.String(), "booted") {
			t.Errorf("after %d ms: the task was booted: %v", i*5, err)
		}
		c.DeleteTask()
		nothingLeft(t, n)
	}
}

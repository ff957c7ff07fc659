package integration

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/shim/capture"
	"github.com/containerd-snap/snap/test/harness"
)

// TestFallback: the task boots within the same start, and of the restore there is no trace.
func TestFallback(t *testing.T) {
	t.Parallel()
	n := newNode(t, harness.Options{})
	for name, f := range failures {
		t.Run(name, func(t *testing.T) {
			w := f.want(t)
			_, e, before := f.capture(t, n, w)
			c := newContainer(t, n, w)
			f.prepareFor(t, c)
			if err := c.Create(w); err != nil {
				t.Fatal(err)
			}
			ns := netns(t, c.Pid())
			attachVeth(t, c.Pid(), "10.98.0.2/24")
			if f.meddle != nil {
				f.meddle(t, c)
			}
			if err := c.Task.Start(testContext(t)); err != nil {
				t.Fatal(err)
			}
			f.recorded(t, c, e)
			s := c.Probe()
			if s.Token == before.Token {
				t.Error("it was restored")
			}
			c.InOwnCgroup()
			if got := netns(t, c.Pid()); got != ns {
				t.Errorf("the network namespace %d, that Create told, became %d", ns, got)
			}
			if out := c.MustExec("ip", "addr"); !strings.Contains(out, "10.98.0.2/24") || !strings.Contains(out, "LOOPBACK,UP") {
				t.Errorf("the task's addresses: %s", out)
			}
			if out, code := c.Exec("ls", "/marker"); code == 0 {
				t.Errorf("the checkpoint's files are there: %s", out)
			}
			execs(c)
			c.Kill(unix.SIGTERM)
			if got := c.Wait(); got != 7 {
				t.Errorf("exit status %d", got)
			}
			c.DeleteTask()
			noNetNS(t, ns)
		})
	}
}

// TestDemandedFails: where a restore was asked for, the start fails, says why,
// and leaves nothing.
func TestDemandedFails(t *testing.T) {
	t.Parallel()
	n := newNode(t, harness.Options{})
	for name, f := range failures {
		for _, how := range []string{"restore", "checkpoint"} {
			t.Run(name+"/"+how, func(t *testing.T) {
				// When everything that the test itself made is gone, too.
				t.Cleanup(func() { nothingLeft(t, n) })
				w := f.want(t)
				a, e, _ := f.capture(t, n, w)
				a.Kill(unix.SIGKILL)
				a.Wait()
				a.DeleteTask()
				value := "Required"
				if how == "checkpoint" {
					value = "demanded"
				}
				w = w.Annotate(how, value)
				c := newContainer(t, n, w)
				f.prepareFor(t, c)
				err := c.Create(w)
				if err == nil {
					if f.meddle != nil {
						f.meddle(t, c)
					} else {
						t.Error("Create succeeded")
					}
					if err = c.Task.Start(testContext(t)); err == nil {
						t.Fatal("the task started")
					}
					if got := c.Wait(); got != 137 {
						t.Errorf("exit status %d", got)
					}
					c.DeleteTask()
				}
				if !strings.Contains(err.Error(), f.says) || !strings.Contains(err.Error(), "asked for") {
					t.Errorf("error %v, want one that says %q", err, f.says)
				}
				if _, err := c.Container.Task(testContext(t), nil); !errdefs.IsNotFound(err) {
					t.Errorf("the task after the failure: %v", err)
				}
				if f.prepare == nil {
					nothingLeft(t, n)
				}
				if st, err := openStore(t, n).Resolve(e.Digest); err == nil && st.State.Failures > 1 {
					t.Errorf("state %+v", st.State)
				}
			})
		}
	}
}

// TestQuarantine: a checkpoint that fails again and again is no longer tried,
// until an operator clears it.
func TestQuarantine(t *testing.T) {
	t.Parallel()
	n := newNode(t, harness.Options{})
	a := start(t, n, probeOf())
	before := a.Probe()
	e := a.MustCapture(capture.Request{Name: "frail"})
	for range checkpoint.QuarantineAfter {
		c := create(t, n, probeOf())
		killHolder(t, c)
		if err := c.Task.Start(testContext(t)); err != nil {
			t.Fatal(err)
		}
		if r := c.Record(); r.Fallback == "" {
			t.Fatalf("record %+v", r)
		}
	}
	start(t, n, probeOf()).MustBooted("quarantined")
	// By name it can still be had.
	named := start(t, n, probeOf().Annotate("checkpoint", "frail"))
	named.MustRestored(e)
	for range checkpoint.QuarantineAfter {
		if _, err := openStore(t, n).RecordFailure(e.Digest, "the test says so"); err != nil {
			t.Fatal(err)
		}
	}
	start(t, n, probeOf()).MustBooted("the test says so")
	if _, err := n.Snapctl(testContext(t), "clear", "frail"); err != nil {
		t.Fatal(err)
	}
	c := start(t, n, probeOf())
	c.MustRestored(e)
	c.GoesOn(before)
}

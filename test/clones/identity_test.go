package clones

import (
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/test/harness/run"
)

// TestOneTemplateManyLives: clones of one template, one after the other, have the
// template's memory and names of their own, and none knows what another counted. What
// `snapctl explain` says of each is what it is.
func TestOneTemplateManyLives(t *testing.T) {
	t.Parallel()
	original := run.Start(t, shared, run.Probe())
	before := original.Probe()
	e := original.CreateCheckpoint("--name", "lives")
	original.GoesOn(before)
	for _, hostname := range []string{"one", "two", "three"} {
		c := run.Start(t, shared, run.Probe(oci.WithHostname(hostname)))
		c.MustRestored(e)
		if s := c.GoesOn(before); s.Hostname != hostname {
			t.Errorf("the clone %s calls itself %s", hostname, s.Hostname)
		}
		var x struct{ Start checkpoint.Start }
		run.Snapctl(t, shared, &x, "explain", c.ID())
		if s := x.Start; s.Outcome != checkpoint.Restore || s.Decision.Name != "lives" || s.PID != c.Pid() {
			t.Errorf("explain says %+v", s)
		}
		c.Kill(unix.SIGTERM)
		if got := c.Wait(); got != 7 {
			t.Errorf("exit status %d", got)
		}
		c.DeleteTask()
	}
	original.GoesOn(before)
}

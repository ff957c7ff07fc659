package integration

import (
	"errors"
	"strings"
	"testing"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/store"
	"github.com/containerd-snap/snap/shim/capture"
	"github.com/containerd-snap/snap/test/harness"
)

// openStore opens a node's store.
func openStore(t *testing.T, n *harness.Node) *store.Store {
	t.Helper()
	s, err := store.Open(n.StoreRoot)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (c *container) recordOf() (checkpoint.Start, error) {
	s, err := store.Open(c.node.StoreRoot)
	if err != nil {
		return checkpoint.Start{}, err
	}
	return s.Start(c.node.Namespace, c.ID())
}

// record is the record of the container's last start.
func (c *container) record() checkpoint.Start {
	c.t.Helper()
	r, err := c.recordOf()
	if err != nil {
		c.t.Fatal(err)
	}
	return r
}

// capture takes a checkpoint of the task.
func (c *container) capture(req capture.Request) (checkpoint.Entry, error) {
	req.ID = c.ID()
	return capture.Call(testContext(c.t), c.record().Address, req)
}

// mustCapture takes a checkpoint under a name, which is removed with the test.
func (c *container) mustCapture(req capture.Request) checkpoint.Entry {
	c.t.Helper()
	e, err := c.capture(req)
	if err != nil {
		c.t.Fatal(err)
	}
	s := openStore(c.t, c.node)
	c.t.Cleanup(func() {
		if err := s.Remove(e.Digest); err != nil && !errors.Is(err, checkpoint.ErrNotFound) {
			c.t.Error(err)
		}
	})
	e, err = s.Resolve(e.Digest)
	if err != nil {
		c.t.Fatal(err)
	}
	return e
}

// mustRestored checks that the task was restored from the checkpoint.
func (c *container) mustRestored(e checkpoint.Entry) {
	c.t.Helper()
	r := c.record()
	if r.Outcome != checkpoint.Restore || r.Decision.Digest != e.Digest {
		c.t.Errorf("%s: outcome %s from %q, want a restore from %s; decision %+v, fallback %q, error %q",
			c.ID(), r.Outcome, r.Decision.Digest, e.Digest, r.Decision, r.Fallback, r.Error)
	}
}

// mustBooted checks that the task was booted, and that the record says why.
func (c *container) mustBooted(reason string) {
	c.t.Helper()
	r := c.record()
	if r.Outcome != checkpoint.Boot || !strings.Contains(r.Decision.Reason, reason) {
		c.t.Errorf("%s: outcome %s, want boot with a reason that says %q; decision %+v", c.ID(), r.Outcome, reason, r.Decision)
	}
}

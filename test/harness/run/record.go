package run

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/store"
	"github.com/containerd-snap/snap/shim/capture"
	"github.com/containerd-snap/snap/test/harness"
)

// OpenStore opens a node's store.
func OpenStore(t *testing.T, n *harness.Node) *store.Store {
	t.Helper()
	s, err := store.Open(n.StoreRoot)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// RecordOf returns what is recorded of the container's last start: the decision and what became of it.
func (c *Container) RecordOf() (checkpoint.Start, error) {
	s, err := store.Open(c.Node.StoreRoot)
	if err != nil {
		return checkpoint.Start{}, err
	}
	return s.Start(c.Node.Namespace, c.ID())
}

// Record is the record of the container's last start.
func (c *Container) Record() checkpoint.Start {
	c.T.Helper()
	r, err := c.RecordOf()
	if err != nil {
		c.T.Fatal(err)
	}
	return r
}

// Capture takes a checkpoint of the task.
func (c *Container) Capture(req capture.Request) (checkpoint.Entry, error) {
	req.ID = c.ID()
	return capture.Call(Context(c.T), c.Record().Address, req)
}

// MustCapture takes a checkpoint under a name, which is removed with the test.
func (c *Container) MustCapture(req capture.Request) checkpoint.Entry {
	c.T.Helper()
	e, err := c.Capture(req)
	if err != nil {
		c.T.Fatal(err)
	}
	return c.registered(e.Digest)
}

// registered is the store's entry of a checkpoint, which is removed with the test.
func (c *Container) registered(digest string) checkpoint.Entry {
	c.T.Helper()
	s := OpenStore(c.T, c.Node)
	c.T.Cleanup(func() {
		if err := s.Remove(digest); err != nil && !errors.Is(err, checkpoint.ErrNotFound) {
			c.T.Error(err)
		}
	})
	e, err := s.Resolve(digest)
	if err != nil {
		c.T.Fatal(err)
	}
	return e
}

// MustRestored checks that the task was restored from the checkpoint.
func (c *Container) MustRestored(e checkpoint.Entry) {
	c.T.Helper()
	r := c.Record()
	if r.Outcome != checkpoint.Restore || r.Decision.Digest != e.Digest {
		c.T.Errorf("%s: outcome %s from %q, want a restore from %s; decision %+v, fallback %q, error %q",
			c.ID(), r.Outcome, r.Decision.Digest, e.Digest, r.Decision, r.Fallback, r.Error)
	}
}

// MustBooted checks that the task was booted, and that the record says why.
func (c *Container) MustBooted(reason string) {
	c.T.Helper()
	r := c.Record()
	if r.Outcome != checkpoint.Boot || !strings.Contains(r.Decision.Reason, reason) {
		c.T.Errorf("%s: outcome %s, want boot with a reason that says %q; decision %+v", c.ID(), r.Outcome, reason, r.Decision)
	}
}

// Captured waits for the end of a capture that the shim takes by itself.
func (c *Container) Captured() checkpoint.Capture {
	c.T.Helper()
	var got checkpoint.Capture
	Eventually(c.T, func() error {
		r, err := c.RecordOf()
		if err != nil {
			return err
		}
		if r.Capture == nil || strings.HasPrefix(r.Capture.Outcome, "waits") {
			return fmt.Errorf("nothing was captured yet: %+v", r.Capture)
		}
		got = *r.Capture
		return nil
	})
	return got
}

// MustMemory checks how the memory came back, and that the record tells why.
func (c *Container) MustMemory(mode checkpoint.MemoryMode, reason string) {
	c.T.Helper()
	r, err := c.RecordOf()
	if err != nil {
		c.T.Fatal(err)
	}
	if r.Memory != mode || !strings.Contains(r.MemoryReason, reason) {
		c.T.Fatalf("memory %s (%s), want %s (%s)", r.Memory, r.MemoryReason, mode, reason)
	}
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", c.Pid()))
	if err != nil {
		c.T.Fatal(err)
	}
	files := strings.Count(string(maps), "/pages-mapped-")
	if (files > 0) != (mode == checkpoint.MemoryMapped) {
		c.T.Errorf("%d areas map a page file", files)
	}
}

// InOwnCgroup checks that the processes are those of the container's own cgroups,
// in every hierarchy that the node uses, and that there are no others.
func (c *Container) InOwnCgroup() {
	c.T.Helper()
	pids, err := c.Task.Pids(Context(c.T))
	if err != nil {
		c.T.Fatal(err)
	}
	var told []int
	for _, p := range pids {
		told = append(told, int(p.Pid))
	}
	own := ":/" + c.Node.Namespace + "/" + c.ID()
	var inside []int
	all, err := harness.Processes()
	if err != nil {
		c.T.Fatal(err)
	}
	for _, p := range all {
		if !slices.ContainsFunc(p.Cgroups, func(line string) bool { return strings.HasSuffix(line, own) }) {
			continue
		}
		inside = append(inside, p.PID)
		for _, line := range p.Cgroups {
			if strings.Contains(line, c.Node.Namespace) && !strings.HasSuffix(line, own) {
				c.T.Errorf("%s: process %s is in cgroup %s, too", c.ID(), p, line)
			}
		}
	}
	slices.Sort(told)
	slices.Sort(inside)
	if !slices.Equal(told, inside) || !slices.Contains(inside, c.Pid()) {
		c.T.Errorf("%s: processes in the container's cgroup: %v, told: %v, init: %d", c.ID(), inside, told, c.Pid())
	}
}

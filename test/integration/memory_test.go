package integration

import (
	"testing"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/shim/capture"
)

// TestMapped: the memory of a Go program comes back mapped by itself, two clones share
// the page file, and a clone can be captured again.
func TestMapped(t *testing.T) {
	t.Parallel()
	w := probeOf()
	w.args = append(w.args, "-memory", "16")
	c := start(t, shared, w)
	before := c.probe()
	e := c.mustCapture(capture.Request{})
	if m := e.Checkpoint.Memory; m.Form != checkpoint.MemoryMapped || !m.Safe {
		t.Fatalf("memory %+v", m)
	}
	c.goesOn(before)
	clone := start(t, shared, w)
	clone.mustRestored(e)
	clone.goesOn(before)
	r, err := clone.recordOf()
	if err != nil {
		t.Fatal(err)
	}
	if r.Memory != checkpoint.MemoryMapped {
		t.Fatalf("memory %s (%s)", r.Memory, r.MemoryReason)
	}
	later := clone.probe()
	again := clone.mustCapture(capture.Request{})
	clone.goesOn(later)
	second := start(t, shared, w)
	second.mustRestored(again)
	second.goesOn(later)
	copied := start(t, shared, w.annotate("memory", "copy"))
	copied.mustRestored(again)
	copied.goesOn(later)
}

package integration

import (
	"fmt"
	"os"
	"testing"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/shim/capture"
)

// TestMappedForms: a checkpoint in the mapped form serves both modes, and no page file can
// be seen from within the container.
func TestMappedForms(t *testing.T) {
	t.Parallel()
	w := allocating(t, "/bin/allocate")
	c := start(t, shared, w)
	rounds(t, c, 2)
	e := c.mustCapture(capture.Request{})
	if m := e.Checkpoint.Memory; m.Form != checkpoint.MemoryMapped || !m.Safe {
		t.Fatalf("the checkpoint's memory is %+v", m)
	}
	rounds(t, c, 2)
	for _, mode := range []checkpoint.MemoryMode{checkpoint.MemoryMapped, checkpoint.MemoryCopy} {
		clone := start(t, shared, w.annotate("memory", string(mode)))
		clone.mustRestored(e)
		clone.mustMemory(mode, "was asked for")
		rounds(t, clone, 3)
	}
	clone := start(t, shared, w)
	clone.mustMemory(checkpoint.MemoryMapped, "(glibc)")
	if out := clone.mustExec("sh", "-c", "find / -xdev -name 'pages-*'; grep -c pages-mapped /proc/1/smaps; ls /proc/1/fd"); len(out) > 40 {
		t.Errorf("the container sees %s", out)
	}
	if _, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", clone.pid())); err != nil {
		t.Error(err)
	}
	// A page file lives as long as somebody maps it.
	if _, err := shared.Snapctl(testContext(t), "rm", e.Digest); err != nil {
		t.Fatal(err)
	}
	rounds(t, clone, 3)
	again := clone.mustCapture(capture.Request{})
	second := start(t, shared, w)
	second.mustRestored(again)
	rounds(t, second, 3)
}

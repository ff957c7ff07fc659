package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/shim/capture"
	"github.com/containerd-snap/snap/test/harness/run"
)

// TestMappedForms: a checkpoint in the mapped form serves both modes, and no page file can
// be seen from within the container.
func TestMappedForms(t *testing.T) {
	t.Parallel()
	w := allocating(t, "/bin/allocate")
	c := start(t, shared, w)
	rounds(t, c, 2)
	e := c.MustCapture(capture.Request{})
	if m := e.Checkpoint.Memory; m.Form != checkpoint.MemoryMapped || !m.Safe {
		t.Fatalf("the checkpoint's memory is %+v", m)
	}
	rounds(t, c, 2)
	for _, mode := range []checkpoint.MemoryMode{checkpoint.MemoryMapped, checkpoint.MemoryCopy} {
		clone := start(t, shared, w.Annotate("memory", string(mode)))
		clone.MustRestored(e)
		clone.MustMemory(mode, "was asked for")
		rounds(t, clone, 3)
	}
	clone := start(t, shared, w)
	clone.MustMemory(checkpoint.MemoryMapped, "(glibc)")
	if out := clone.MustExec("find", "/", "-xdev", "-name", "pages-*"); out != "" {
		t.Errorf("the container sees %s", out)
	}
	holdsNoPageFile(t, clone.Pid())
	// A page file lives as long as somebody maps it.
	if _, err := shared.Snapctl(testContext(t), "rm", e.Digest); err != nil {
		t.Fatal(err)
	}
	rounds(t, clone, 3)
	again := clone.MustCapture(capture.Request{})
	second := start(t, shared, w)
	second.MustRestored(again)
	rounds(t, second, 3)
}

// holdsNoPageFile checks that a process has no page file open; it may map some.
func holdsNoPageFile(t *testing.T, pid int) {
	t.Helper()
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil || len(fds) == 0 {
		t.Fatalf("process %d has no descriptors: %v", pid, err)
	}
	for _, fd := range fds {
		if file, err := os.Readlink(fd); err == nil && strings.Contains(file, "pages-mapped") {
			t.Errorf("process %d has %s open as %s", pid, file, fd)
		}
	}
}

// TestMappedTree: processes that share memory copy-on-write have each its own content after
// a mapped restore, and still share what is equal; also after a capture of the restored tree, and
// when it is copied from the mapped form.
func TestMappedTree(t *testing.T) {
	t.Parallel()
	w := allocating(t, "/bin/fork")
	generation := start(t, shared, w)
	inEach := func(c *container) {
		for who := range 4 {
			had := strings.Count(c.Out.String(), fmt.Sprint("ok ", who))
			eventually(t, func() error {
				out := c.Out.String()
				if _, what, found := strings.Cut(out, "wrong: "); found {
					t.Fatalf("wrong: %s", what)
				}
				if strings.Count(out, fmt.Sprint("ok ", who)) < had+2 {
					return fmt.Errorf("process %d had no two rounds", who)
				}
				return nil
			})
		}
	}
	inEach(generation)
	for range 3 {
		e := generation.MustCapture(capture.Request{Stop: true})
		if m := e.Checkpoint.Memory; m.Form != checkpoint.MemoryMapped || !m.Safe {
			t.Fatalf("the checkpoint's memory is %+v", m)
		}
		copied := start(t, shared, w.Annotate("checkpoint", e.Digest).Annotate("memory", "copy"))
		copied.MustMemory(checkpoint.MemoryCopy, "was asked for")
		generation = start(t, shared, w.Annotate("checkpoint", e.Digest))
		generation.MustMemory(checkpoint.MemoryMapped, "(glibc)")
		inEach(copied)
		inEach(generation)
		pids, err := generation.Task.Pids(testContext(t))
		if err != nil || len(pids) != 4 {
			t.Fatalf("%d processes (%v)", len(pids), err)
		}
		var written, all int64
		for _, p := range pids {
			holdsNoPageFile(t, int(p.Pid))
			u := run.UsageOf(t, int(p.Pid))
			written += u.Anonymous
			all += u.PSS
		}
		// Four times 34 MB are once 32 MB, and what each has of its own: 2 MB, and the
		// hundred pages that differ.
		if written > 20<<20 || all > 64<<20 {
			t.Errorf("the processes have written %d bytes and take %d", written, all)
		}
		if err := copied.Remove(); err != nil {
			t.Fatal(err)
		}
	}
}

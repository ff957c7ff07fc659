package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/shim/capture"
	"github.com/containerd-snap/snap/test/harness"
)

const (
	memoryImage = "localhost/snap/memory:1"
	pythonImage = "localhost/snap/python:1"
)

// memoryPrograms puts an image with the programs of testdata/memory on the shared node.
var memoryPrograms = sync.OnceValue(func() error {
	dir, err := os.MkdirTemp("", "snap-memory-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()
	root := filepath.Join(dir, "root")
	bin := filepath.Join(root, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return err
	}
	maker, err := harness.Tool("images")
	if err != nil {
		return err
	}
	busybox, err := harness.Image("busybox")
	if err != nil {
		return err
	}
	const (
		source = "testdata/memory/allocate.c"
		advise = "testdata/memory/advise.c"
	)
	archive := filepath.Join(dir, "memory.tar")
	for _, args := range [][]string{
		// With references to what only an allocator has that is loaded before it.
		{"gcc", "-O2", "-pthread", "-Wl,-z,dynamic-undefined-weak", "-o", filepath.Join(bin, "allocate"), source},
		{"gcc", "-O2", "-o", filepath.Join(bin, "advise"), advise},
		{"gcc", "-O2", "-o", filepath.Join(bin, "hold"), "testdata/memory/hold.c"},
		{"gcc", "-O2", "-o", filepath.Join(bin, "fork"), "testdata/memory/fork.c"},
		{"gcc", "-O2", "-Wall", "-pthread", "-o", filepath.Join(bin, "areas"), "testdata/memory/areas.c"},
		{"g++", "-O2", "-pthread", "-o", filepath.Join(bin, "allocate-c++"), "testdata/memory/allocate.cc"},
		{"gcc", "-O2", "-pthread", "-static", "-o", filepath.Join(bin, "allocate-static"), source},
		{"musl-gcc", "-O2", "-o", filepath.Join(bin, "allocate-musl"), source},
		{"env", "CGO_ENABLED=0", "go", "build", "-trimpath", "-o", filepath.Join(bin, "allocate-go"), "./allocate"},
		{"env", "CGO_ENABLED=0", "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(bin, "allocate-stripped"), "./allocate"},
	} {
		if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
		}
	}
	if err := addLibraries(ctx, root, filepath.Join(bin, "allocate"), filepath.Join(bin, "allocate-c++")); err != nil {
		return err
	}
	image := exec.CommandContext(ctx, maker, "-o", archive, "-name", memoryImage, "-from", busybox, "-add", root, "/bin/allocate")
	if out, err := image.CombinedOutput(); err != nil {
		return fmt.Errorf("make the image of programs that allocate: %w: %s", err, out)
	}
	return shared.Import(ctx, archive)
})

// preloads are allocators in the image, as Debian packages them.
var preloads = map[string]string{
	"jemalloc": "libjemalloc.so.2",
	"tcmalloc": "libtcmalloc_minimal.so.4",
	"mimalloc": "libmimalloc.so.2",
}

// addLibraries copies what the programs, and the allocators, are linked with to root.
func addLibraries(ctx context.Context, root string, programs ...string) error {
	paths := map[string]bool{}
	for _, name := range preloads {
		found, err := filepath.Glob("/usr/lib/*/" + name)
		if err != nil || len(found) != 1 {
			return fmt.Errorf("%s is not installed: run make setup (%w)", name, err)
		}
		paths[found[0]] = true
		programs = append(programs, found[0])
	}
	absolute := regexp.MustCompile(`/[^ ]+`)
	for _, p := range programs {
		out, err := exec.CommandContext(ctx, "ldd", p).CombinedOutput()
		if err != nil {
			return fmt.Errorf("ldd %s: %w: %s", p, err, out)
		}
		for _, path := range absolute.FindAllString(string(out), -1) {
			paths[path] = true
		}
	}
	musl, err := filepath.Glob("/lib/ld-musl-*.so.1")
	if err != nil || len(musl) != 1 {
		return fmt.Errorf("musl is not installed: run make setup (%w)", err)
	}
	paths[musl[0]] = true
	for path := range paths {
		if strings.HasPrefix(path, root) {
			continue
		}
		data, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			continue // a name that ldd gives, of no file
		}
		if err != nil {
			return err
		}
		to := filepath.Join(root, path)
		if name := filepath.Base(path); strings.HasPrefix(name, "lib") {
			to = filepath.Join(root, "lib", name)
		}
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, data, 0o755)); err != nil {
			return err
		}
	}
	return nil
}

// allocating wants a container with a program of the image.
func allocating(t *testing.T, args ...string) want {
	t.Helper()
	if err := memoryPrograms(); err != nil {
		t.Fatal(err)
	}
	return want{Image: memoryImage, Args: args, Opts: []oci.SpecOpts{oci.WithEnv([]string{"LD_LIBRARY_PATH=/lib"})}}
}

// preloaded wants a container whose program allocates with one of preloads.
func preloaded(t *testing.T, name string) want {
	t.Helper()
	w := allocating(t, "/bin/allocate")
	w.Opts = append(w.Opts, oci.WithEnv([]string{"LD_PRELOAD=/lib/" + preloads[name]}))
	return w
}

// TestAllocators proves which allocators do not tell mapped memory from anonymous memory:
// programs that allocate, free, grow and clear memory and check each byte of it go on
// after a restore, and after a capture of the restored one; and that those
// that are not proven are recognised, and their memory copied.
func TestAllocators(t *testing.T) {
	t.Parallel()
	script, err := os.ReadFile("testdata/memory/allocate.py")
	if err != nil {
		t.Fatal(err)
	}
	python := want{Image: pythonImage, Args: []string{"/usr/bin/python3", "-c", string(script)}}
	for _, test := range []struct {
		name   string
		want   want
		form   checkpoint.MemoryMode
		reason string
	}{
		{"glibc", allocating(t, "/bin/allocate"), checkpoint.MemoryMapped, "(glibc)"},
		{"C++", allocating(t, "/bin/allocate-c++"), checkpoint.MemoryMapped, "libstdc++"},
		{"musl", allocating(t, "/bin/allocate-musl"), checkpoint.MemoryMapped, "(musl)"},
		{"Go", allocating(t, "/bin/allocate-go"), checkpoint.MemoryCopy, "allocate-go is a Go program"},
		{"Go, stripped", allocating(t, "/bin/allocate-stripped"), checkpoint.MemoryCopy, "is a Go program"},
		{"CPython", python, checkpoint.MemoryMapped, "libuuid"},
		{"static", allocating(t, "/bin/allocate-static"), checkpoint.MemoryCopy, "allocate-static is linked statically"},
		{"jemalloc", preloaded(t, "jemalloc"), checkpoint.MemoryCopy, "contains jemalloc"},
		{"tcmalloc", preloaded(t, "tcmalloc"), checkpoint.MemoryCopy, "contains tcmalloc"},
		{"mimalloc", preloaded(t, "mimalloc"), checkpoint.MemoryCopy, "contains mimalloc"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.want.Image == pythonImage {
				archive, err := harness.Image("python")
				if err != nil {
					t.Fatal(err)
				}
				if err := shared.Import(testContext(t), archive); err != nil {
					t.Fatal(err)
				}
			}
			generation := start(t, shared, test.want)
			rounds(t, generation, 2)
			for range 2 {
				e := generation.MustCapture(capture.Request{Stop: true})
				if m := e.Checkpoint.Memory; m.Form != test.form || m.Safe != (test.form == checkpoint.MemoryMapped) || !strings.Contains(m.Reason, test.reason) {
					t.Fatalf("the checkpoint's memory is %+v", m)
				}
				generation = start(t, shared, test.want.Annotate("checkpoint", e.Digest))
				generation.MustRestored(e)
				generation.MustMemory(test.form, test.reason)
				rounds(t, generation, 10)
			}
		})
	}
}

// rounds waits until a program of testdata/memory has had n more rounds.
func rounds(t *testing.T, c *container, n int) {
	t.Helper()
	had := strings.Count(c.Out.String(), "ok")
	eventually(t, func() error {
		out := c.Out.String()
		if _, what, found := strings.Cut(out, "wrong: "); found {
			t.Fatalf("wrong: %s", what)
		}
		if got := strings.Count(out, "ok") - had; got < n {
			return fmt.Errorf("%d rounds of %d", got, n)
		}
		return nil
	})
}

// TestStale shows what the rule is for: a program that gives anonymous memory back reads
// zeroes, also from a checkpoint in the mapped form; only if mapped memory is forced
// upon it, it reads what was there.
func TestStale(t *testing.T) {
	t.Parallel()
	w := allocating(t, "/bin/advise")
	c := start(t, shared, w.Annotate("memory", "mapped"))
	c.Out.WaitFor(t, "ok")
	e := c.MustCapture(capture.Request{})
	if m := e.Checkpoint.Memory; m.Form != checkpoint.MemoryMapped || m.Safe || !strings.Contains(m.Reason, "advise may call madvise") {
		t.Fatalf("the checkpoint's memory is %+v", m)
	}
	for _, test := range []struct {
		mode   string
		memory checkpoint.MemoryMode
		reason string
		reads  string
	}{
		{"mapped", checkpoint.MemoryMapped, "memory=mapped was asked for", "stale"},
		{"auto", checkpoint.MemoryCopy, "advise may call madvise", "zeroes"},
		{"copy", checkpoint.MemoryCopy, "memory=copy was asked for", "zeroes"},
	} {
		clone := start(t, shared, w.Annotate("memory", test.mode))
		clone.MustRestored(e)
		clone.MustMemory(test.memory, test.reason)
		clone.Kill(unix.SIGUSR1)
		clone.Out.WaitFor(t, "after madvise: "+test.reads)
	}
}

// TestStaleGo: Go's runtime takes memory that it gave back for zeroes, so that a Go program
// upon which mapped memory is forced finds other bytes in new memory.
func TestStaleGo(t *testing.T) {
	t.Parallel()
	w := allocating(t, "/bin/allocate-go").Annotate("memory", "mapped")
	c := start(t, shared, w)
	rounds(t, c, 2)
	e := c.MustCapture(capture.Request{Stop: true})
	clone := start(t, shared, w)
	clone.MustRestored(e)
	clone.Out.WaitFor(t, "wrong: new memory")
}

// TestStaleJemalloc: jemalloc takes large areas that it gave back for zeroes, so that calloc
// returns other bytes from mapped memory.
func TestStaleJemalloc(t *testing.T) {
	t.Parallel()
	w := preloaded(t, "jemalloc").Annotate("memory", "mapped")
	c := start(t, shared, w)
	rounds(t, c, 2)
	e := c.MustCapture(capture.Request{Stop: true})
	clone := start(t, shared, w)
	clone.MustRestored(e)
	clone.Out.WaitFor(t, "wrong: calloc")
}

// TestForcedAllocators: no stale byte is found in what tcmalloc and mimalloc give out, although
// they give memory back. The rule copies them all the same: docs/memory.md.
func TestForcedAllocators(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"tcmalloc", "mimalloc"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := preloaded(t, name).Annotate("memory", "mapped")
			c := start(t, shared, w)
			for range 2 {
				rounds(t, c, 3)
				e := c.MustCapture(capture.Request{Stop: true})
				c = start(t, shared, w.Annotate("checkpoint", e.Digest))
				c.MustRestored(e)
				c.MustMemory(checkpoint.MemoryMapped, "was asked for")
				rounds(t, c, 30)
			}
		})
	}
}

// TestMemoryForms: what cannot be had is said.
func TestMemoryForms(t *testing.T) {
	t.Parallel()
	w := allocating(t, "/bin/advise")
	c := start(t, shared, w)
	c.Out.WaitFor(t, "ok")
	e := c.MustCapture(capture.Request{})
	if m := e.Checkpoint.Memory; m.Form != checkpoint.MemoryCopy || m.Safe {
		t.Fatalf("the checkpoint's memory is %+v", m)
	}
	booted := start(t, shared, w.Annotate("memory", "mapped"))
	r, err := booted.RecordOf()
	if err != nil || r.Outcome != checkpoint.Boot || !strings.Contains(r.Decision.Reason, "in the copy form (advise may call madvise") {
		t.Errorf("%s: %s (%v)", r.Outcome, r.Decision.Reason, err)
	}
	for name, test := range map[string]struct {
		w    want
		says string
	}{
		"required": {w.Annotate("memory", "mapped").Annotate("restore", "Required"), "in the copy form"},
		"unknown":  {w.Annotate("memory", "eager"), "allowed is one of auto, copy, lazy, mapped"},
	} {
		c := newContainer(t, shared, test.w)
		if err := c.Create(test.w); err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

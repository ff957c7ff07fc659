package integration

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/shim/capture"
	"github.com/containerd-snap/snap/test/harness/run"
)

var mappedRestores = flag.Int("mapped-restores", 12, "how many times TestMappedMany restores")

// TestMappedMany restores many times from one checkpoint, two at once, and each time checks
// every byte of the memory, while the program goes on to write to it.
func TestMappedMany(t *testing.T) {
	t.Parallel()
	w := allocating(t, "/bin/allocate")
	c := start(t, shared, w)
	rounds(t, c, 3)
	e := c.MustCapture(capture.Request{Stop: true})
	var wg sync.WaitGroup
	next := make(chan int)
	for range 2 {
		wg.Go(func() {
			for n := range next {
				if !t.Failed() {
					mappedOnce(t, w, e, n)
				}
			}
		})
	}
	for n := range *mappedRestores {
		next <- n
	}
	close(next)
	wg.Wait()
	// Nobody wrote to what they share.
	if err := openStore(t, shared).Verify(testContext(t), e, nil); err != nil {
		t.Error(err)
	}
}

func mappedOnce(t *testing.T, w want, e checkpoint.Entry, n int) {
	c, err := makeContainer(t, shared, w)
	if err != nil {
		t.Error(err)
		return
	}
	defer func() {
		if err := c.Remove(); err != nil {
			t.Error(err)
		}
	}()
	if err := c.Create(w); err != nil {
		t.Error(err)
		return
	}
	if err := c.Task.Start(testContext(t)); err != nil {
		t.Error(err)
		return
	}
	r, err := c.RecordOf()
	if err != nil || r.Outcome != checkpoint.Restore || r.Decision.Digest != e.Digest || r.Memory != checkpoint.MemoryMapped {
		t.Errorf("restore %d: %s, memory %s, fallback %q (%v)", n, r.Outcome, r.Memory, r.Fallback, err)
		return
	}
	for end := time.Now().Add(deadline); ; time.Sleep(20 * time.Millisecond) {
		switch out := c.Out.String(); {
		case strings.Contains(out, "wrong"):
			t.Errorf("restore %d: %s", n, out)
			return
		case strings.Count(out, "ok") >= 6: // two rounds of each thread
			return
		case time.Now().After(end):
			t.Errorf("restore %d: its output is %q", n, out)
			return
		}
	}
}

// usage is what a clone takes and how long it took.
type usage struct {
	run.Usage

	// RestoreMS is how long CRIU took, of Create and of Start.
	RestoreMS float64 `json:"restore_ms"`
}

func usageOf(t *testing.T, c *container) usage {
	t.Helper()
	u := usage{Usage: run.UsageOf(t, c.Pid())}
	r, err := c.RecordOf()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range r.Phases {
		if p.Name == "hold" || p.Name == "restore" {
			u.RestoreMS += p.MS
		}
	}
	return u
}

// TestMappedShared: five clones of a program with 200 MB share what they do not write, and
// none sees what another wrote. What they take goes to out/memory.json.
func TestMappedShared(t *testing.T) {
	t.Parallel()
	w := allocating(t, "/bin/hold")
	c := start(t, shared, w)
	c.Out.WaitFor(t, "ok 0")
	e := c.MustCapture(capture.Request{Stop: true})
	figures := map[checkpoint.MemoryMode][]usage{}
	for _, mode := range []checkpoint.MemoryMode{checkpoint.MemoryMapped, checkpoint.MemoryCopy} {
		clones := make([]*container, 5)
		for n := range clones {
			clones[n] = start(t, shared, w.Annotate("memory", string(mode)))
			clones[n].MustRestored(e)
		}
		for range 2 {
			for _, clone := range clones {
				checkAll(t, clone)
			}
		}
		for _, clone := range clones {
			figures[mode] = append(figures[mode], usageOf(t, clone))
		}
		for _, clone := range clones {
			if err := clone.Remove(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for n, u := range figures[checkpoint.MemoryMapped] {
		if u.Private > 10<<20 || u.RSS < 200<<20 {
			t.Errorf("clone %d: %+v", n, u)
		}
	}
	if u := figures[checkpoint.MemoryCopy][0]; u.Private < 200<<20 {
		t.Errorf("a copy: %+v", u)
	}
	if err := openStore(t, shared).Verify(testContext(t), e, nil); err != nil {
		t.Error(err)
	}
	report(t, map[string]any{"program_bytes": 200 << 20, "clones": 5, "mapped": figures[checkpoint.MemoryMapped], "copy": figures[checkpoint.MemoryCopy]})
}

// TestMappedAgain: the checkpoint of a clone holds what the clone has written, and shares the page
// file with the checkpoint that the clone came from, also when that one is removed.
func TestMappedAgain(t *testing.T) {
	t.Parallel()
	w := allocating(t, "/bin/hold")
	c := start(t, shared, w)
	c.Out.WaitFor(t, "ok 0")
	e := c.MustCapture(capture.Request{Stop: true})
	st := openStore(t, shared)
	for generation := range 3 {
		clone := start(t, shared, w.Annotate("checkpoint", e.Digest).Annotate("memory", "mapped"))
		clone.MustRestored(e)
		checkAll(t, clone)
		next := clone.MustCapture(capture.Request{Stop: true})
		m, own := next.Checkpoint.Memory, next.Checkpoint.Bytes()-next.Checkpoint.SharedBytes()
		if m.Form != checkpoint.MemoryMapped || m.Base != e.Digest || next.Checkpoint.SharedBytes() < 200<<20 || own > 20<<20 {
			t.Fatalf("generation %d: %+v, %d bytes of its own, %d shared", generation, m, own, next.Checkpoint.SharedBytes())
		}
		if _, err := shared.Snapctl(testContext(t), "rm", e.Digest); err != nil {
			t.Fatal(err)
		}
		if err := st.Verify(testContext(t), next, nil); err != nil {
			t.Fatal(err)
		}
		e = next
	}
	copied := start(t, shared, w.Annotate("checkpoint", e.Digest).Annotate("memory", "copy"))
	copied.MustMemory(checkpoint.MemoryCopy, "was asked for")
	checkAll(t, copied)
}

// checkAll has the program hold check all its memory.
func checkAll(t *testing.T, c *container) {
	t.Helper()
	had := strings.Count(c.Out.String(), "ok")
	c.Kill(unix.SIGUSR1)
	eventually(t, func() error {
		out := c.Out.String()
		if strings.Contains(out, "wrong") {
			t.Fatal(out)
		}
		if strings.Count(out, "ok") == had {
			return fmt.Errorf("its output is %q", out)
		}
		return nil
	})
}

func report(t *testing.T, figures any) {
	t.Helper()
	data, err := json.MarshalIndent(figures, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join("..", "..", "out")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "memory.json"), append(data, '\n'), 0o644); err != nil { //nolint:gosec // figures, no secret
		t.Fatal(err)
	}
}

package integration

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/shim/capture"
)

var mappedRestores = flag.Int("mapped-restores", 12, "how many times TestMappedMany restores")

// TestMappedMany restores many times from one checkpoint, two at once, and each time checks
// every byte of the memory, while the program goes on to write to it.
func TestMappedMany(t *testing.T) {
	t.Parallel()
	w := allocating(t, "/bin/allocate")
	c := start(t, shared, w)
	rounds(t, c, 3)
	e := c.mustCapture(capture.Request{Stop: true})
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
		if err := c.remove(); err != nil {
			t.Error(err)
		}
	}()
	if err := c.create(w); err != nil {
		t.Error(err)
		return
	}
	if err := c.task.Start(testContext(t)); err != nil {
		t.Error(err)
		return
	}
	r, err := c.recordOf()
	if err != nil || r.Outcome != checkpoint.Restore || r.Decision.Digest != e.Digest || r.Memory != checkpoint.MemoryMapped {
		t.Errorf("restore %d: %s, memory %s, fallback %q (%v)", n, r.Outcome, r.Memory, r.Fallback, err)
		return
	}
	for end := time.Now().Add(deadline); ; time.Sleep(20 * time.Millisecond) {
		switch out := c.out.String(); {
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

// usage is what a process takes, in bytes (proc(5), smaps_rollup).
type usage struct {
	RSS     int64 `json:"rss_bytes"`
	PSS     int64 `json:"pss_bytes"`
	Private int64 `json:"private_bytes"`
	Shared  int64 `json:"shared_bytes"`
	// Anonymous is what was written.
	Anonymous int64 `json:"anonymous_bytes"`
	// RestoreMS is how long CRIU took, of Create and of Start.
	RestoreMS float64 `json:"restore_ms"`
}

func usageOf(t *testing.T, c *container) usage {
	t.Helper()
	u := usageOfProcess(t, c.pid())
	r, err := c.recordOf()
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

func usageOfProcess(t *testing.T, pid int) usage {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	var u usage
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(line, ":")
		kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			continue
		}
		switch key {
		case "Rss":
			u.RSS += kb << 10
		case "Pss":
			u.PSS += kb << 10
		case "Private_Clean", "Private_Dirty":
			u.Private += kb << 10
		case "Shared_Clean", "Shared_Dirty":
			u.Shared += kb << 10
		case "Anonymous":
			u.Anonymous = kb << 10
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
	c.out.waitFor(t, "ok 0")
	e := c.mustCapture(capture.Request{Stop: true})
	figures := map[checkpoint.MemoryMode][]usage{}
	for _, mode := range []checkpoint.MemoryMode{checkpoint.MemoryMapped, checkpoint.MemoryCopy} {
		clones := make([]*container, 5)
		for n := range clones {
			clones[n] = start(t, shared, w.annotate("memory", string(mode)))
			clones[n].mustRestored(e)
		}
		for range 2 {
			for _, clone := range clones {
				had := strings.Count(clone.out.String(), "ok")
				clone.kill(unix.SIGUSR1)
				eventually(t, func() error {
					out := clone.out.String()
					if strings.Contains(out, "wrong") {
						t.Fatal(out)
					}
					if strings.Count(out, "ok") == had {
						return fmt.Errorf("its output is %q", out)
					}
					return nil
				})
			}
		}
		for _, clone := range clones {
			figures[mode] = append(figures[mode], usageOf(t, clone))
		}
		for _, clone := range clones {
			if err := clone.remove(); err != nil {
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

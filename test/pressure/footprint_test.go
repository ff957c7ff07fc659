package pressure

import (
	"bufio"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/test/harness"
)

// memory is what one shim holds, in bytes.
type memory struct {
	// PSS counts a page that N processes share as 1/N.
	PSS int64 `json:"pss"`
	RSS int64 `json:"rss"`
	// Private are the pages of its own that are not its program's file's.
	Private int64 `json:"private_anonymous"`
}

// footprint is what a shim costs.
type footprint struct {
	// AtRest is measured on a shim whose one container runs, AfterExecs after
	// three processes were executed in it, one after the other. Medians.
	AtRest     memory `json:"at_rest"`
	AfterExecs memory `json:"after_3_execs"`
	Threads    int    `json:"threads"`
	FDs        int    `json:"fds"`
	// Binary is the size of the program's file.
	Binary int64 `json:"binary_bytes"`
	// InitMS is the time that the initialisers of its packages take, InitAllocs
	// what they allocate, as GODEBUG=inittrace=1 tells. Medians.
	InitMS    float64 `json:"init_ms"`
	InitBytes int64   `json:"init_allocated_bytes"`
}

const (
	// footprintRounds is odd, for the median.
	footprintRounds = 3
	// initBytes is what initialisers may allocate, in each of a start's processes.
	initBytes = 512 << 10
	// settle is how long a shim is left alone before it is measured: Go gives
	// memory back, and ends what it does in the background, within moments.
	settle = 2 * time.Second
)

// TestFootprint: at rest our shim holds no more memory than the stock one,
// though runc is a part of it.
func TestFootprint(t *testing.T) {
	n := newNode(t, harness.Options{})
	results := map[string]*footprint{snap: {}, runc: {}}
	for name, f := range results {
		path := ownCopy(t, n, shims[name])
		f.Binary = stripped(t, path)
		f.InitMS, f.InitBytes = initCost(t, path)
	}
	rest, used := map[string][]memory{}, map[string][]memory{}
	for i := range footprintRounds {
		containers := map[string]*container{}
		for name := range results {
			c, err := start(testContext(t), n, name, fmt.Sprint(name, i), nil, "sleep", "1000")
			if err != nil {
				t.Fatal(err)
			}
			containers[name] = c
		}
		time.Sleep(settle)
		for name, c := range containers {
			rest[name] = append(rest[name], memoryOf(t, shimOf(t, c)))
			for i := range 3 {
				if err := c.exec(testContext(t), fmt.Sprint("exec", i), "true"); err != nil {
					t.Fatal(err)
				}
			}
		}
		time.Sleep(settle)
		for name, c := range containers {
			used[name] = append(used[name], memoryOf(t, shimOf(t, c)))
			results[name].count(t, shimOf(t, c))
			if err := c.remove(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, f := range results {
		f.AtRest, f.AfterExecs = middle(rest[name]), middle(used[name])
	}
	report(t, "footprint.json", results)
	ours, stock := results[snap], results[runc]
	if ours.InitBytes > initBytes {
		t.Errorf("the initialisers of our packages allocate %d bytes, more than %d: see GODEBUG=inittrace=1", ours.InitBytes, initBytes)
	}
	if ours.AtRest.PSS > stock.AtRest.PSS || ours.AfterExecs.PSS > stock.AfterExecs.PSS {
		t.Errorf("our shim holds %d KiB at rest and %d KiB after execs, the stock one %d and %d",
			ours.AtRest.PSS>>10, ours.AfterExecs.PSS>>10, stock.AtRest.PSS>>10, stock.AfterExecs.PSS>>10)
	}
}

// ownCopy gives the node a copy of a program of its PATH: the pages of its file
// are then shared with nobody outside of it, and nobody's share of them counts.
// They are read from the disk again, as after the host's start: how large the
// parts are in which the kernel maps them depends on how they came to memory.
func ownCopy(t *testing.T, n *harness.Node, name string) string {
	t.Helper()
	path := filepath.Join(n.Bin, name)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)); err != nil {
		t.Fatal(err)
	}
	return path
}

// shimOf is the process that a task's init is a child of: its shim.
func shimOf(t *testing.T, c *container) int {
	t.Helper()
	p, err := harness.ReadProcess(int(c.task.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	return p.PPID
}

// count counts a shim's threads and descriptors.
func (f *footprint) count(t *testing.T, shim int) {
	t.Helper()
	var errs [2]error
	f.Threads, errs[0] = harness.CountThreads(shim)
	f.FDs, errs[1] = harness.CountFDs(shim)
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
}

// memoryOf reads /proc/PID/smaps_rollup (proc_pid_smaps(5)).
func memoryOf(t *testing.T, pid int) memory {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var m memory
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) != 3 {
			continue
		}
		kib, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			t.Fatalf("smaps_rollup: %q: %v", s.Text(), err)
		}
		switch fields[0] {
		case "Pss:":
			m.PSS = kib << 10
		case "Rss:":
			m.RSS = kib << 10
		case "Anonymous:":
			m.Private = kib << 10
		}
	}
	if m.PSS == 0 {
		t.Fatalf("process %d has no memory", pid)
	}
	return m
}

// middle is the median by PSS.
func middle(all []memory) memory {
	slices.SortFunc(all, func(a, b memory) int { return int(a.PSS - b.PSS) })
	return all[len(all)/2]
}

// stripped checks that a program has neither symbols nor debugging information, and
// needs no dynamic linker, and returns its size.
func stripped(t *testing.T, path string) int64 {
	t.Helper()
	for section, means := range map[string]string{".symtab": "not stripped", ".debug_info": "not stripped", ".interp": "linked dynamically"} {
		if has(t, path, section) {
			t.Errorf("%s is %s: it has a section %s", path, means, section)
		}
	}
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return st.Size()
}

// initCost runs the program for its version and returns the median of what its
// packages' initialisers cost.
func initCost(t *testing.T, path string) (ms float64, allocated int64) {
	t.Helper()
	type cost struct {
		ms    float64
		bytes int64
	}
	var all []cost
	for range 15 {
		cmd := exec.CommandContext(t.Context(), path, "-v")
		cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1")
		var trace strings.Builder
		cmd.Stderr = &trace
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		var c cost
		for line := range strings.Lines(trace.String()) {
			// init net/http @1.3 ms, 0.051 ms clock, 9664 bytes, 104 allocs
			f := strings.Fields(line)
			if len(f) < 9 || f[0] != "init" {
				continue
			}
			clock, err := strconv.ParseFloat(f[4], 64)
			if err != nil {
				t.Fatalf("trace %q: %v", line, err)
			}
			bytes, err := strconv.ParseInt(f[7], 10, 64)
			if err != nil {
				t.Fatalf("trace %q: %v", line, err)
			}
			c.ms += clock
			c.bytes += bytes
		}
		if c.ms == 0 {
			t.Fatalf("no trace: %q", trace.String())
		}
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b cost) int {
		if a.ms < b.ms {
			return -1
		}
		return 1
	})
	return all[len(all)/2].ms, all[len(all)/2].bytes
}

// has says that an ELF file has a section.
func has(t *testing.T, path, section string) bool {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return f.Section(section) != nil
}

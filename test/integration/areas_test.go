package integration

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/shim/capture"
)

// areaKinds are the areas of testdata/memory/areas.c: whether a mapped restore maps the page
// file there, and the flags that the kernel shows of them (proc_pid_smaps(5)).
var areaKinds = map[string]struct {
	mapped bool
	flags  string
}{
	"kept": {true, "rd wr"}, "written": {true, "rd wr"}, "readonly": {true, "rd"}, "none": {true, ""},
	"split": {true, "rd wr"}, "notforked": {true, "rd wr dc"}, "notdumped": {true, "rd wr dd"}, "advised": {true, "rd wr nh"},

	"guarded": {false, "rd wr"}, "growsdown": {false, "rd wr gd"}, "locked": {false, "rd wr lo"}, "wiped": {false, "rd wr wf"},
	"executable": {false, "rd ex"}, "private-memfd": {false, "rd wr"}, "private-huge": {false, "rd wr ht"},
	"anonymous": {false, "rd wr sh"}, "memfd": {false, "rd wr sh"}, "posix": {false, "rd wr sh"}, "sysv": {false, "rd wr sh"},
	"filed": {false, "rd wr sh"}, "shared-huge": {false, "rd wr sh ht"},
}

// TestAreas: areas of each kind have their content and their kind after a mapped restore, in
// a parent and its child, also after a capture of the restored ones. Meanwhile a
// tracer reads and writes a process, and the other dumps core.
func TestAreas(t *testing.T) {
	t.Parallel()
	hugePages(t, 8)
	w := allocating(t, "/bin/areas").Annotate("memory", "mapped")
	w.Opts = append(w.Opts, limits("RLIMIT_CORE", 1<<30), limits("RLIMIT_MEMLOCK", 4<<20))
	generation := start(t, shared, w)
	areas := areasOf(t, generation)
	intact(t, generation, 2)
	for _, filter := range []string{"0x33", "0x37"} {
		e := generation.MustCapture(capture.Request{Stop: true})
		generation = start(t, shared, w.Annotate("checkpoint", e.Digest))
		generation.MustRestored(e)
		generation.MustMemory(checkpoint.MemoryMapped, "was asked for")
		haveKinds(t, generation.Pid(), areas)
		intact(t, generation, 2)
		traced(t, generation.Pid(), areas)
		intact(t, generation, 1)
		dumped(t, generation, filter, areas)
		intact(t, generation, 2)
		// Nobody wrote to the page file.
		if err := openStore(t, shared).Verify(testContext(t), e, nil); err != nil {
			t.Error(err)
		}
	}
}

func limits(name string, n uint64) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		s.Process.Rlimits = append(s.Process.Rlimits, specs.POSIXRlimit{Type: name, Soft: n, Hard: n})
		return nil
	}
}

// hugePages gives the machine n more huge pages until the test ends.
func hugePages(t *testing.T, n int) {
	t.Helper()
	const file = "/proc/sys/vm/nr_hugepages"
	count := func() int {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(strings.TrimSpace(string(data)))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	set := func(n int) {
		if err := os.WriteFile(file, []byte(strconv.Itoa(n)), 0); err != nil {
			t.Fatal(err)
		}
	}
	had := count()
	t.Cleanup(func() { set(had) })
	eventually(t, func() error {
		if set(had + n); count() < had+n {
			return fmt.Errorf("the machine finds %d huge pages, and %d are wanted", count(), had+n)
		}
		return nil
	})
}

// testedArea is an area of the program.
type testedArea struct {
	number, address uint64
}

// word is what the program wrote to address.
func (a testedArea) word(address uint64) uint64 { return (a.number+1)<<56 ^ address }

var areaLine = regexp.MustCompile(`area ([a-z-]+) (\d+) 0x([0-9a-f]+)\n`)

// areasOf reads which areas the program says that it has.
func areasOf(t *testing.T, c *container) map[string]testedArea {
	t.Helper()
	c.Out.WaitFor(t, "child ")
	areas := map[string]testedArea{}
	for _, m := range areaLine.FindAllStringSubmatch(c.Out.String(), -1) {
		number, nerr := strconv.ParseUint(m[2], 10, 8)
		address, aerr := strconv.ParseUint(m[3], 16, 64)
		if nerr != nil || aerr != nil {
			t.Fatal(m)
		}
		areas[m[1]] = testedArea{number, address}
	}
	if len(areas) != len(areaKinds) {
		t.Fatalf("the program has %d areas, not %d: %s", len(areas), len(areaKinds), c.Out.String())
	}
	return areas
}

// intact has the program check its areas, n times.
func intact(t *testing.T, c *container, n int) {
	t.Helper()
	for range n {
		answers(t, c, unix.SIGUSR1, "ok ")
	}
}

func answers(t *testing.T, c *container, sig unix.Signal, text string) {
	t.Helper()
	had := strings.Count(c.Out.String(), text)
	c.Kill(sig)
	eventually(t, func() error {
		out := c.Out.String()
		if strings.Contains(out, "wrong: ") {
			t.Fatal(out)
		}
		if strings.Count(out, text) == had {
			return fmt.Errorf("no more %q in %q", text, out)
		}
		return nil
	})
}

// haveKinds compares what the kernel shows of the areas with areaKinds.
func haveKinds(t *testing.T, pid int, areas map[string]testedArea) {
	t.Helper()
	shown := smapsOf(t, pid)
	for name, kind := range areaKinds {
		a := slices.IndexFunc(shown, func(s shownArea) bool { return s.start <= areas[name].address && areas[name].address < s.end })
		if a < 0 {
			t.Errorf("%s: not there", name)
			continue
		}
		s := shown[a]
		if mapped := strings.Contains(s.file, "pages-mapped"); mapped != kind.mapped {
			t.Errorf("%s is a mapping of %q", name, s.file)
		}
		for _, flag := range []string{"rd", "wr", "ex", "sh", "lo", "wf", "dc", "dd", "gd", "ht", "nh"} {
			if want := slices.Contains(strings.Fields(kind.flags), flag); want != slices.Contains(s.flags, flag) {
				t.Errorf("%s has the flags %s, want %s", name, s.flags, kind.flags)
			}
		}
		if name == "locked" && s.locked == 0 {
			t.Error("nothing of it is locked")
		}
		if name == "kept" && (s.start != areas[name].address || s.end-s.start != 256*4096 || s.rss > s.end-s.start) {
			t.Errorf("%s is %+v", name, s)
		}
	}
}

// shownArea is an area in smaps (proc_pid_smaps(5)), in bytes.
type shownArea struct {
	start, end, locked, rss uint64
	file                    string
	flags                   []string
}

func smapsOf(t *testing.T, pid int) []shownArea {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		t.Fatal(err)
	}
	var shown []shownArea
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if key, ok := strings.CutSuffix(f[0], ":"); ok {
			s := &shown[len(shown)-1]
			switch key {
			case "VmFlags":
				s.flags = f[1:]
			case "Locked", "Rss":
				kb, err := strconv.ParseUint(f[1], 10, 64)
				if err != nil {
					t.Fatal(err)
				}
				if key == "Rss" {
					s.rss = kb << 10
				} else {
					s.locked = kb << 10
				}
			}
			continue
		}
		var s shownArea
		if _, err := fmt.Sscanf(f[0], "%x-%x", &s.start, &s.end); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		s.file = strings.Join(f[5:], " ")
		shown = append(shown, s)
	}
	return shown
}

// traced attaches to a process as a debugger does, reads an area and writes to one that may
// only be read, as for a breakpoint.
func traced(t *testing.T, pid int, areas map[string]testedArea) {
	t.Helper()
	runtime.LockOSThread() // a tracer is a thread
	defer runtime.UnlockOSThread()
	if err := unix.PtraceSeize(pid); err != nil {
		t.Fatal(err)
	}
	defer unix.PtraceDetach(pid)
	if err := unix.PtraceInterrupt(pid); err != nil {
		t.Fatal(err)
	}
	var status unix.WaitStatus
	if _, err := unix.Wait4(pid, &status, unix.WALL, nil); err != nil || !status.Stopped() {
		t.Fatalf("it has not stopped: %#x (%v)", status, err)
	}
	for _, name := range []string{"kept", "readonly", "none", "locked", "wiped", "guarded"} {
		a := areas[name]
		buf := make([]byte, 8)
		for page := uint64(0); page < 256; page += 15 {
			address := a.address + page*4096 + 64
			if _, err := unix.PtracePeekData(pid, uintptr(address), buf); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if got := binary.NativeEndian.Uint64(buf); got != a.word(address) {
				t.Errorf("%s: the tracer reads %#x at %#x, want %#x", name, got, address, a.word(address))
			}
		}
	}
	address := areas["readonly"].address + 5*4096
	for _, word := range []uint64{0xcccccccccccccccc, areas["readonly"].word(address)} {
		buf := binary.NativeEndian.AppendUint64(nil, word)
		if _, err := unix.PtracePokeData(pid, uintptr(address), buf); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 8)
		if _, err := unix.PtracePeekData(pid, uintptr(address), got); err != nil || !bytes.Equal(got, buf) {
			t.Fatalf("the tracer reads %x, and wrote %x (%v)", got, buf, err)
		}
	}
}

// dumped has the child of the program dump core, and looks for the areas in it (core(5)).
func dumped(t *testing.T, c *container, filter string, areas map[string]testedArea) {
	t.Helper()
	if pattern, err := os.ReadFile("/proc/sys/kernel/core_pattern"); err != nil || strings.HasPrefix(string(pattern), "|") || strings.Contains(string(pattern), "/") {
		t.Fatalf("cores go to %q: this test wants a name in the directory of the program (%v)", pattern, err)
	}
	pids, err := c.Task.Pids(testContext(t))
	if err != nil || len(pids) != 2 {
		t.Fatalf("%d processes (%v)", len(pids), err)
	}
	for _, p := range pids {
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/coredump_filter", p.Pid), []byte(filter), 0); err != nil {
			t.Fatal(err)
		}
	}
	answers(t, c, unix.SIGUSR2, "dumped")
	cores, err := filepath.Glob(fmt.Sprintf("/proc/%d/root/core*", c.Pid()))
	if err != nil || len(cores) != 1 {
		t.Fatalf("the cores are %s (%v)", cores, err)
	}
	core, err := elf.Open(cores[0])
	if err != nil {
		t.Fatal(err)
	}
	defer core.Close()
	for name, want := range map[string]bool{
		// Nothing in it was written: it is as any mapped file.
		"kept": filter == "0x37",
		// One page was written, and the whole area is there.
		"written": true,
		// These are not mapped from the page file, or not to be dumped.
		"growsdown": true, "anonymous": true, "notdumped": false,
	} {
		got, err := inCore(core, areas[name])
		if err != nil || got != want {
			t.Errorf("%s is in the core: %t, want %t (%v)", name, got, want, err)
		}
	}
	if err := os.Remove(cores[0]); err != nil {
		t.Fatal(err)
	}
}

// inCore says whether a core holds an area, and checks what it holds of it.
func inCore(core *elf.File, a testedArea) (bool, error) {
	for _, p := range core.Progs {
		if p.Type != elf.PT_LOAD || a.address < p.Vaddr || a.address >= p.Vaddr+p.Memsz || p.Filesz == 0 {
			continue
		}
		data := make([]byte, 256*4096)
		if _, err := p.ReadAt(data, int64(a.address-p.Vaddr)); err != nil {
			return false, err
		}
		for at := uint64(64); at < uint64(len(data)); at += 8 {
			// What the program writes to lies in page 3.
			if got, want := binary.NativeEndian.Uint64(data[at:]), a.word(a.address+at); got != want && at/4096 != 3 {
				return false, fmt.Errorf("it holds %#x at %#x, want %#x", got, a.address+at, want)
			}
		}
		return true, nil
	}
	return false, nil
}

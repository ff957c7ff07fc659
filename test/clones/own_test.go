package clones

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/containerd-snap/snap/shim/capture"
	"github.com/containerd-snap/snap/test/harness"
	"github.com/containerd-snap/snap/test/harness/run"
)

// rlimits are those of each of a container's processes, by its command: as the kernel
// tells them, a line each.
func rlimits(t *testing.T, c *run.Container) map[string]string {
	t.Helper()
	pids, err := c.Task.Pids(run.Context(t))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, p := range pids {
		x, err := harness.ReadProcess(int(p.Pid))
		if err != nil {
			t.Fatal(err)
		}
		limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", p.Pid))
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for line := range strings.Lines(string(limits)) {
			lines = append(lines, strings.Join(strings.Fields(line), " "))
		}
		all[strings.Join(x.Args, " ")] = strings.Join(lines, "\n")
	}
	return all
}

// TestRlimits: every process of a clone has the limits that the spec gives, or that it has
// given to itself, and what is executed beside it those of the spec. A container with other
// limits is another one.
func TestRlimits(t *testing.T) {
	t.Parallel()
	of := func(files uint64) run.Want {
		// A child of its own lowers two of them.
		return run.Shell("(ulimit -n 100; ulimit -c 0; exec sleep 1001) & sleep 1002 & exec sleep 1003", edit(func(s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{
				{Type: "RLIMIT_NOFILE", Soft: files, Hard: 700},
				{Type: "RLIMIT_CORE", Soft: 4096, Hard: 8192},
				{Type: "RLIMIT_NPROC", Soft: 5000, Hard: 6000},
				{Type: "RLIMIT_FSIZE", Soft: 1 << 30, Hard: 1 << 31},
				{Type: "RLIMIT_STACK", Soft: 4 << 20, Hard: 16 << 20},
			}
		}))
	}
	const files = "Max open files %d 700 files"
	programs := []string{"sleep 1001", "sleep 1002", "sleep 1003"}
	original := run.Start(t, shared, of(600))
	var want map[string]string
	run.Eventually(t, func() error {
		want = rlimits(t, original)
		if got := slices.Sorted(maps.Keys(want)); !slices.Equal(got, programs) {
			return fmt.Errorf("the processes are %q", got)
		}
		return nil
	})
	for _, line := range []string{
		fmt.Sprintf(files, 600), "Max core file size 4096 8192 bytes", "Max processes 5000 6000 processes",
		"Max file size 1073741824 2147483648 bytes", "Max stack size 4194304 16777216 bytes",
	} {
		if !strings.Contains(want["sleep 1003"], line+"\n") {
			t.Errorf("the limits of init lack %q:\n%s", line, want["sleep 1003"])
		}
	}
	if got := want["sleep 1001"]; !strings.Contains(got, "Max open files 100 100 files\n") || !strings.Contains(got, "Max core file size 0 0 bytes\n") {
		t.Errorf("the child's own limits:\n%s", got)
	}

	e := original.MustCapture(capture.Request{})
	clone := run.Start(t, shared, of(600))
	clone.MustRestored(e)
	again := clone.MustCapture(capture.Request{})
	second := run.Start(t, shared, of(600).Annotate("checkpoint", again.Digest))
	second.MustRestored(again)
	for _, c := range []*run.Container{original, clone, second} {
		got := rlimits(t, c)
		for _, program := range programs {
			if got[program] != want[program] {
				t.Errorf("%s: the limits of %q are\n%s\nand were\n%s", c.ID(), program, got[program], want[program])
			}
		}
		if got := c.MustExec("sh", "-c", "ulimit -Sn; ulimit -Hn"); got != "600\n700\n" {
			t.Errorf("%s: an exec'd process may open %q files", c.ID(), got)
		}
	}

	other := run.Start(t, shared, of(500))
	other.MustBooted("no registered checkpoint")
	var explained struct{ NearMisses []struct{ Differs []string } }
	run.Snapctl(t, shared, &explained, "explain", other.ID())
	if m := explained.NearMisses; len(m) == 0 || !slices.Equal(m[0].Differs, []string{"rlimit RLIMIT_NOFILE differs"}) {
		t.Errorf("explain says of the nearest checkpoints %v", m)
	}
	run.Eventually(t, func() error {
		if got := rlimits(t, other)["sleep 1003"]; !strings.Contains(got, fmt.Sprintf(files, 500)) {
			return fmt.Errorf("the limits of the other container's init are\n%s", got)
		}
		return nil
	})
}

// TestLabels: containerd's labels are no part of what a checkpoint fits, and those of a
// clone are what its client gave it.
func TestLabels(t *testing.T) {
	t.Parallel()
	labelled := func(labels map[string]string) *run.Container {
		t.Helper()
		c := run.New(t, shared, run.Probe())
		if _, err := c.SetLabels(run.Context(t), labels); err != nil {
			t.Fatal(err)
		}
		if err := c.Create(run.Probe()); err != nil {
			t.Fatal(err)
		}
		if err := c.Task.Start(run.Context(t)); err != nil {
			t.Fatal(err)
		}
		return c
	}
	original := labelled(map[string]string{"of": "the original", "only": "there"})
	had, err := original.Labels(run.Context(t))
	if err != nil {
		t.Fatal(err)
	}
	before := original.Probe()
	e := original.MustCapture(capture.Request{})
	clone := labelled(map[string]string{"of": "the clone", "more": "here"})
	clone.MustRestored(e)
	clone.GoesOn(before)
	labels, err := clone.Labels(run.Context(t))
	_, only := labels["only"]
	if err != nil || labels["of"] != "the clone" || labels["more"] != "here" || only {
		t.Errorf("the labels of the clone are %v: %v", labels, err)
	}
	if now, err := original.Labels(run.Context(t)); err != nil || !maps.Equal(now, had) {
		t.Errorf("the labels of the original are %v, and were %v: %v", now, had, err)
	}
}

// TestLogsAtOnce: each of three clones that start at the same time prints to its own log,
// whatever that is, and to none of the others'.
func TestLogsAtOnce(t *testing.T) {
	t.Parallel()
	streams := func(*testing.T) (cio.Creator, func() string) {
		var out run.Output
		return cio.NewCreator(cio.WithStreams(nil, &out, io.Discard), cio.WithFIFODir(shared.Dir)), out.String
	}
	file := func(t *testing.T, kind string) (cio.Creator, func() string) {
		l := destinations[kind](t)
		return l.creator, func() string {
			said, err := os.ReadFile(l.file)
			if err != nil && !os.IsNotExist(err) {
				t.Error(err)
			}
			return string(said)
		}
	}
	for kind, open := range map[string]func(*testing.T) (cio.Creator, func() string){
		"fifo":    streams,
		"file":    func(t *testing.T) (cio.Creator, func() string) { return file(t, "file") },
		"program": func(t *testing.T) (cio.Creator, func() string) { return file(t, "program") },
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			of := func(hostname string) run.Want {
				return run.Shell("while :; do read h </proc/sys/kernel/hostname; echo I am $h; sleep 0.01; done", oci.WithHostname(hostname))
			}
			into, said := open(t)
			original := startInto(t, of("original"), into)
			run.Eventually(t, func() error { return says(said(), "original", 3) })
			e := original.MustCapture(capture.Request{})
			names := []string{"one", "two", "three"}
			clones, logs, begun := make([]*run.Container, len(names)), make([]func() string, len(names)), make(chan error)
			for i, name := range names {
				into, said := open(t)
				logs[i] = said
				clones[i] = run.New(t, shared, of(name))
				go func() { begun <- begin(clones[i], into) }()
			}
			for range names {
				if err := <-begun; err != nil {
					t.Error(err)
				}
			}
			for i, name := range names {
				clones[i].MustRestored(e)
				run.Eventually(t, func() error { return says(logs[i](), name, 50) })
				// It may have been captured before it printed the name that it had read.
				for n, line := range wholeLines(logs[i]()) {
					if line != "I am "+name && (n > 0 || line != "I am original") {
						t.Errorf("line %d of the log of clone %s: %q", n, name, line)
					}
				}
			}
			for _, line := range wholeLines(said()) {
				if line != "I am original" {
					t.Errorf("in the log of the captured container: %q", line)
				}
			}
		})
	}
}

// wholeLines are those of a log that is being written.
func wholeLines(log string) []string {
	lines := strings.Split(log, "\n")
	return lines[:len(lines)-1]
}

// says checks that a log names somebody at least n times.
func says(log, name string, n int) error {
	if got := strings.Count(log, "I am "+name+"\n"); got < n {
		return fmt.Errorf("%d lines of %s, want %d: %q", got, name, n, log)
	}
	return nil
}

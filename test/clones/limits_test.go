package clones

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	cgroup1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	cgroup2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/shim/capture"
	"github.com/containerd-snap/snap/test/harness"
	"github.com/containerd-snap/snap/test/harness/run"
)

// edit changes a container's spec.
func edit(change func(*specs.Spec)) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *specs.Spec) error {
		change(s)
		return nil
	}
}

// bounds are a container's limits.
type bounds struct {
	memory, pids int64
	// quota is of 100 ms, in microseconds.
	quota int64
	oom   int
}

func (b bounds) opt() oci.SpecOpts {
	return edit(func(s *specs.Spec) {
		period := uint64(100000)
		s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &b.memory}
		s.Linux.Resources.Pids = &specs.LinuxPids{Limit: &b.pids}
		s.Linux.Resources.CPU = &specs.LinuxCPU{Quota: &b.quota, Period: &period}
		s.Process.OOMScoreAdj = &b.oom
	})
}

// metrics says how often the container had used up its CPU quota, and how many processes
// it may have.
func metrics(t *testing.T, c *run.Container) (throttled, pids uint64) {
	t.Helper()
	m, err := c.Task.Metrics(run.Context(t))
	if err != nil {
		t.Fatal(err)
	}
	v, err := typeurl.UnmarshalAny(m.Data)
	if err != nil {
		t.Fatal(err)
	}
	switch v := v.(type) {
	case *cgroup1.Metrics:
		return v.GetCPU().GetThrottling().GetThrottledPeriods(), v.GetPids().GetLimit()
	case *cgroup2.Metrics:
		return v.GetCPU().GetNrThrottled(), v.GetPids().GetLimit()
	default:
		t.Fatalf("metrics of type %T", v)
		return 0, 0
	}
}

// obeys checks that the limits are in force on the container, each by running into it.
func (b bounds) obeys(t *testing.T, c *run.Container) {
	t.Helper()
	c.InOwnCgroup()
	pids, err := c.Task.Pids(run.Context(t))
	if err != nil || len(pids) < 3 {
		t.Fatalf("%d processes: %v", len(pids), err)
	}
	for _, p := range pids {
		adj, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", p.Pid))
		if err != nil || strings.TrimSpace(string(adj)) != strconv.Itoa(b.oom) {
			t.Errorf("%s: the OOM score of process %d is %s, want %d: %v", c.ID(), p.Pid, adj, b.oom, err)
		}
	}
	// Half of the memory is to be had, and twice as much is not.
	block := func(bytes int64) []string {
		return []string{"dd", "if=/dev/zero", "of=/dev/null", "count=1", "bs=" + strconv.FormatInt(bytes, 10)}
	}
	c.MustExec(block(b.memory / 2)...)
	if out, code := c.Exec(block(2 * b.memory)...); code != 137 {
		t.Errorf("%s: to use twice its memory of %d ends with %d: %s", c.ID(), b.memory, code, out)
	}
	// So are half of the processes, and not twice as many. Who cannot fork ends.
	many := func(n int64) (string, uint32) {
		out, code := c.Exec("sh", "-c", fmt.Sprintf("for i in $(seq %d); do sleep 100 >/dev/null 2>&1 & done", n))
		b.only(t, c, len(pids))
		return out, code
	}
	if out, code := many(b.pids / 2); code != 0 {
		t.Errorf("%s: %d of %d processes: status %d: %s", c.ID(), b.pids/2, b.pids, code, out)
	}
	if out, code := many(2 * b.pids); code == 0 || !strings.Contains(out, "fork") {
		t.Errorf("%s: %d of %d processes: status %d: %s", c.ID(), 2*b.pids, b.pids, code, out)
	}
	before, most := metrics(t, c)
	if most != uint64(b.pids) {
		t.Errorf("%s: its metrics say that it may have %d processes, want %d", c.ID(), most, b.pids)
	}
	c.MustExec("sh", "-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done")
	if after, _ := metrics(t, c); after == before {
		t.Errorf("%s: it had its CPU quota of %d µs in 100 ms, and never used it up", c.ID(), b.quota)
	}
}

// only ends the processes that sleep for 100 seconds, and waits until n are left.
func (b bounds) only(t *testing.T, c *run.Container, n int) {
	t.Helper()
	run.Eventually(t, func() error {
		pids, err := c.Task.Pids(run.Context(t))
		if err != nil || len(pids) == n {
			return err
		}
		for _, p := range pids {
			if x, err := harness.ReadProcess(int(p.Pid)); err == nil && slices.Equal(x.Args, []string{"sleep", "100"}) {
				_ = unix.Kill(x.PID, unix.SIGKILL) // it may have ended
			}
		}
		return fmt.Errorf("%d processes are left, want %d", len(pids), n)
	})
}

// TestLimits: a clone has its own limits, in force on all its processes, and its own
// metrics; what runs into a limit of one does not touch another.
func TestLimits(t *testing.T) {
	t.Parallel()
	of := func(b bounds) run.Want {
		w := run.Probe(b.opt())
		// The shell waits for orphans, which else would count as processes.
		w.Args = []string{"sh", "-c", "sleep 10000 & /bin/probe; exit 1"}
		return w
	}
	large, small := bounds{memory: 200 << 20, pids: 60, quota: 20000, oom: 200}, bounds{memory: 90 << 20, pids: 30, quota: 10000, oom: 300}
	original := run.Start(t, shared, of(large))
	before := original.Probe()
	e := original.MustCapture(capture.Request{})
	clone := run.Start(t, shared, of(small))
	clone.MustRestored(e)
	clone.GoesOn(before)
	small.obeys(t, clone)
	// In the other direction, too.
	again := clone.MustCapture(capture.Request{})
	second := run.Start(t, shared, of(large).Annotate("checkpoint", again.Digest))
	second.MustRestored(again)
	large.obeys(t, second)
	clone.GoesOn(before)
	second.GoesOn(before)

	// What is done to one is done to it alone.
	sleeper := clone.NewExec(false, "sleep", "10000")
	if err := sleeper.Start(run.Context(t)); err != nil {
		t.Fatal(err)
	}
	here, err := clone.Task.Pids(run.Context(t))
	if err != nil {
		t.Fatal(err)
	}
	there, err := second.Task.Pids(run.Context(t))
	if err != nil || len(here) != len(there)+1 {
		t.Errorf("%d processes in the clone that has one more, %d in the other: %v", len(here), len(there), err)
	}
	clone.Kill(unix.SIGKILL)
	if status := clone.Wait(); status != 137 {
		t.Errorf("exit status %d", status)
	}
	original.GoesOn(before)
	second.GoesOn(before)
}

// TestSysctls: those of each of a clone's namespaces are those of its spec.
func TestSysctls(t *testing.T) {
	t.Parallel()
	w := run.Probe(edit(func(s *specs.Spec) {
		s.Linux.Sysctl = map[string]string{
			"net.ipv4.ip_unprivileged_port_start": "77",
			"net/core/somaxconn":                  "66",
			"kernel.domainname":                   "example.org",
			"kernel.shmmax":                       "55555",
			"kernel.msgmax":                       "4444",
			"kernel.sem":                          "32001\t1024000001\t501\t32001",
			"fs.mqueue.msg_max":                   "13",
		}
	}))
	original := run.Start(t, shared, w)
	before := original.Probe()
	e := original.MustCapture(capture.Request{})
	clone := run.Start(t, shared, w)
	clone.MustRestored(e)
	clone.GoesOn(before)
	again := clone.MustCapture(capture.Request{})
	second := run.Start(t, shared, w.Annotate("checkpoint", again.Digest))
	second.MustRestored(again)
	for _, c := range []*run.Container{original, clone, second} {
		for name, want := range map[string]string{
			"net/ipv4/ip_unprivileged_port_start": "77", "net/core/somaxconn": "66", "kernel/domainname": "example.org",
			"kernel/shmmax": "55555", "kernel/msgmax": "4444", "kernel/sem": "32001\t1024000001\t501\t32001", "fs/mqueue/msg_max": "13",
		} {
			if got := strings.TrimSpace(c.MustExec("cat", filepath.Join("/proc/sys", name))); got != want {
				t.Errorf("%s: %s is %q, want %q", c.ID(), name, got, want)
			}
		}
	}
	// Another value is another container.
	other := run.Start(t, shared, func() run.Want {
		w := w
		w.Opts = append(w.Opts, edit(func(s *specs.Spec) { s.Linux.Sysctl["kernel.shmmax"] = "66666" }))
		return w
	}())
	other.MustBooted("no registered checkpoint")
}

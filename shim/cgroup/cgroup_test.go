package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/cgroups/v3"
	v1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	v2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// memoryLimit is enough for a shell, and not for what it then executes.
const memoryLimit = 16 << 20

// newCgroup makes a memory cgroup with a limit, removed at the test's end, and
// says how a container's manager would name it.
func newCgroup(t *testing.T) (dir string, paths map[string]string) {
	t.Helper()
	name := fmt.Sprintf("snap-test-%d-%d", os.Getpid(), time.Now().UnixNano())
	unified := cgroups.Mode() == cgroups.Unified
	limits := map[string]string{"memory.limit_in_bytes": strconv.Itoa(memoryLimit), "memory.swappiness": "0"}
	dir = filepath.Join("/sys/fs/cgroup/memory", name)
	paths = map[string]string{"memory": dir, "pids": "/gone", "": "/gone"}
	if unified {
		limits = map[string]string{"memory.max": strconv.Itoa(memoryLimit), "memory.swap.max": "0"}
		dir = filepath.Join("/sys/fs/cgroup", name)
		paths = map[string]string{"": dir}
		write(t, "/sys/fs/cgroup/cgroup.subtree_control", "+memory")
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// The kernel takes a moment to empty a cgroup whose process has died.
		for deadline := time.Now().Add(10 * time.Second); ; {
			err := os.Remove(dir)
			if err == nil || errors.Is(err, os.ErrNotExist) {
				return
			}
			if time.Now().After(deadline) {
				t.Errorf("remove the test's cgroup: %v", err)
				return
			}
			time.Sleep(time.Millisecond)
		}
	})
	for file, value := range limits {
		write(t, filepath.Join(dir, file), value)
	}
	return dir, paths
}

func write(t *testing.T, file, value string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

// join runs a command in the cgroup.
func join(t *testing.T, dir, command string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", "echo $$ >"+filepath.Join(dir, "cgroup.procs")+" && "+command)
	cmd.Stderr = &bytes.Buffer{}
	return cmd
}

// oomKill has the kernel kill a process in the cgroup for lack of memory.
func oomKill(t *testing.T, dir string) {
	t.Helper()
	cmd := join(t, dir, "exec dd if=/dev/zero of=/dev/null bs=256M count=1")
	var exit *exec.ExitError
	if err := cmd.Run(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != unix.SIGKILL {
		t.Fatalf("the kernel did not kill for lack of memory: %v %s", err, cmd.Stderr)
	}
}

// A kill is told once, and before Stop returns: whoever reports the exit after
// Stop reports the kill before it.
func TestOOMIsToldBeforeStopReturns(t *testing.T) {
	for range 5 {
		dir, paths := newCgroup(t)
		var told atomic.Int32
		w, err := WatchOOM(paths, func() { told.Add(1) })
		if err != nil {
			t.Fatal(err)
		}
		oomKill(t, dir)
		w.Stop()
		if n := told.Load(); n != 1 {
			t.Fatalf("told %d times", n)
		}
		w.Stop()
		if n := told.Load(); n != 1 {
			t.Fatalf("told %d times after a second Stop", n)
		}
	}
}

// A kill that init survives is told while the watch goes on.
func TestOOMIsToldAtOnce(t *testing.T) {
	dir, paths := newCgroup(t)
	told := make(chan struct{}, 10)
	w, err := WatchOOM(paths, func() { told <- struct{}{} })
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	for range 2 {
		oomKill(t, dir)
		select {
		case <-told:
		case <-time.After(10 * time.Second):
			t.Fatal("the kill was not told")
		}
	}
	w.Stop()
	if len(told) != 0 {
		t.Errorf("told %d times too often", len(told))
	}
}

func TestNoOOM(t *testing.T) {
	dir, paths := newCgroup(t)
	w, err := WatchOOM(paths, func() { t.Error("told of a kill that was none") })
	if err != nil {
		t.Fatal(err)
	}
	if err := join(t, dir, "true").Run(); err != nil {
		t.Fatal(err)
	}
	w.Stop()
	(*OOMWatch)(nil).Stop()

	// A cgroup that is removed under the watch is no kill either.
	w, err = WatchOOM(paths, func() { t.Error("told of a kill that was none") })
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	w.Stop()
}

func TestWatchRefuses(t *testing.T) {
	for name, paths := range map[string]map[string]string{
		"no memory cgroup": {"pids": "/sys/fs/cgroup/pids"},
		"nothing":          nil,
		"gone, v1":         {"memory": filepath.Join(t.TempDir(), "gone")},
		"gone, v2":         {"": filepath.Join(t.TempDir(), "gone")},
	} {
		before := descriptors(t)
		w, err := WatchOOM(paths, func() {})
		if err == nil || w != nil || !strings.Contains(err.Error(), "out-of-memory") {
			t.Errorf("%s: %v", name, err)
		}
		if after := descriptors(t); after != before {
			t.Errorf("%s: %d descriptors before, %d after", name, before, after)
		}
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// The parts for v2, on files: a v1 host has no controllers there.
func TestWatchV2Files(t *testing.T) {
	dir := t.TempDir()
	events := filepath.Join(dir, "memory.events")
	write(t, events, "")
	if err := os.Chmod(events, 0o600); err != nil {
		t.Fatal(err)
	}
	told := make(chan struct{}, 10)
	w, err := WatchOOM(map[string]string{"": dir}, func() { told <- struct{}{} })
	if err != nil {
		t.Fatal(err)
	}
	write(t, events, "low 0\nhigh 7\nmax 3\noom 1\noom_kill 1\noom_group_kill 0\n")
	select {
	case <-told:
	case <-time.After(10 * time.Second):
		t.Fatal("the kill was not told")
	}
	// Other counts change without a kill.
	write(t, events, "low 0\nhigh 8\nmax 3\noom 1\noom_kill 1\noom_group_kill 0\n")
	w.Stop()
	if len(told) != 0 {
		t.Error("told twice")
	}
}

func TestOOMKills(t *testing.T) {
	for data, want := range map[string]int{
		"": 0,
		"oom_kill_disable 0\nunder_oom 0\noom_kill 3\n":                3,
		"low 0\nhigh 0\nmax 12\noom 2\noom_kill 1\noom_group_kill 5\n": 1,
		"oom_kill_disable 0\nunder_oom 1\n":                            0, // Before Linux 4.13.
		"oom_kill 4":                                                   4,
		"oom_kill many\n":                                              0,
		"oom_kill 1 2\noom_kill 9\n":                                   9,
		"xoom_kill 1\noom_kill_x 2\n":                                  0,
	} {
		if got := oomKills([]byte(data)); got != want {
			t.Errorf("oomKills(%q) = %d, want %d", data, got, want)
		}
	}
}

func FuzzOOMKills(f *testing.F) {
	f.Add([]byte("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"))
	f.Add([]byte("oom_kill -1\n"))
	f.Add([]byte("oom_kill 99999999999999999999\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if n := oomKills(append(data, "\noom_kill 7\n"...)); n != 7 && !bytes.Contains(data, []byte("oom_kill")) {
			t.Errorf("%d", n)
		}
	})
}

func TestStats(t *testing.T) {
	dir, _ := newCgroup(t)
	cmd := join(t, dir, "echo in && exec cat")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := stdout.Read(make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	c, err := Load(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	stats, err := c.Stats()
	if err != nil {
		t.Fatal(err)
	}
	var limit uint64
	switch s := stats.(type) {
	case *v1.Metrics:
		limit = s.GetMemory().GetUsage().GetLimit()
	case *v2.Metrics:
		limit = s.GetMemory().GetUsageLimit()
	default:
		t.Fatalf("metrics of type %T", stats)
	}
	if limit != memoryLimit {
		t.Errorf("limit %d", limit)
	}
	if err := c.EnableControllers(); err != nil {
		t.Error(err)
	}
}

func TestWithoutCgroup(t *testing.T) {
	var c *Cgroup
	if _, err := c.Stats(); !errdefs.IsNotFound(err) {
		t.Errorf("Stats: %v", err)
	}
	if err := c.EnableControllers(); err != nil {
		t.Errorf("EnableControllers: %v", err)
	}
	const noProcess = 1 << 30
	if _, err := Load(noProcess); err == nil || !strings.Contains(err.Error(), strconv.Itoa(noProcess)) {
		t.Errorf("Load: %v", err)
	}
}

package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/shim/capture"
	"github.com/containerd-snap/snap/test/harness"
)

// cloneOf runs a container, captures it and starts a second one like it.
func cloneOf(t *testing.T, n *harness.Node, w want) (original, clone *container, before probeState) {
	t.Helper()
	original = start(t, n, w)
	before = original.probe()
	e := original.mustCapture(capture.Request{})
	clone = start(t, n, w)
	clone.mustRestored(e)
	return original, clone, before
}

func TestRestore(t *testing.T) {
	t.Parallel()
	a := start(t, shared, probeOf())
	a.mustBooted("no registered checkpoint")
	before := a.probe()
	e := a.mustCapture(capture.Request{})
	a.goesOn(before)

	b := create(t, shared, probeOf(oci.WithHostname("clone-b")))
	if b.pid() == 0 {
		t.Fatal("Create told no pid")
	}
	ns := netns(t, b.pid())
	if ns == netns(t, os.Getpid()) || ns == netns(t, a.pid()) {
		t.Errorf("the network namespace %d is not the container's own", ns)
	}
	if s := b.status(); s != "created" {
		t.Errorf("status before Start: %s", s)
	}
	pid := b.pid()
	if err := b.task.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	b.mustRestored(e)
	if b.pid() != pid || netns(t, b.pid()) != ns {
		t.Errorf("pid %d and network namespace %d became %d and %d at Start", pid, ns, b.pid(), netns(t, b.pid()))
	}
	s := b.goesOn(before)
	if s.Hostname != "clone-b" {
		t.Errorf("hostname of the clone: %q", s.Hostname)
	}
	b.inOwnCgroup()
	st, err := openStore(t, shared).Resolve(e.Digest)
	if err != nil || st.State.Restores != 1 || st.State.LastUsed.IsZero() {
		t.Errorf("state of the checkpoint: %+v, %v", st.State, err)
	}
}

// TestRestoredTask does with a restored task what can be done with a booted one.
func TestRestoredTask(t *testing.T) {
	t.Parallel()
	w := probeOf(oci.WithMemoryLimit(200 << 20))
	_, c, before := cloneOf(t, shared, w)
	c.goesOn(before)
	for name, check := range map[string]func(*container){
		"exec": execs, "pause": pauseAndResume, "stats": hasStats, "update": updateMemory, "cgroup": (*container).inOwnCgroup,
	} {
		t.Run(name, func(t *testing.T) {
			defer func(was *testing.T) { c.t = was }(c.t)
			c.t = t
			check(c)
		})
	}
	c.kill(unix.SIGUSR1)
	c.out.waitFor(t, "signal user defined signal 1")
	c.kill(unix.SIGTERM)
	if got := c.wait(); got != 7 {
		t.Errorf("exit status %d", got)
	}
	if !strings.Contains(c.out.String(), "terminated "+before.Token) {
		t.Errorf("output %q", c.out)
	}
	if strings.Contains(c.out.String(), "booted") {
		t.Errorf("the clone booted: %q", c.out)
	}
	if s := c.delete(); s.ExitCode() != 7 {
		t.Errorf("the deletion says %d", s.ExitCode())
	}
}

// TestGenerations captures a restored task, and restores from that.
func TestGenerations(t *testing.T) {
	t.Parallel()
	c := start(t, shared, probeOf())
	before := c.probe()
	for range 3 {
		e := c.mustCapture(capture.Request{Stop: true})
		if got := c.wait(); got != 137 {
			t.Errorf("exit status %d", got)
		}
		c = start(t, shared, probeOf())
		c.mustRestored(e)
		now := c.goesOn(before)
		if now.Counter <= before.Counter {
			t.Errorf("the counter is %d, was %d", now.Counter, before.Counter)
		}
		before = now
		c.inOwnCgroup()
	}
}

// TestClonesAtOnce restores several from one checkpoint at the same time.
func TestClonesAtOnce(t *testing.T) {
	t.Parallel()
	a := start(t, shared, probeOf())
	before := a.probe()
	e := a.mustCapture(capture.Request{})
	clones := make([]*container, 4)
	var wg sync.WaitGroup
	for n := range clones {
		clones[n] = newContainer(t, shared, probeOf(oci.WithHostname(fmt.Sprint("clone", n))))
		wg.Go(func() {
			err := clones[n].create(want{})
			if err == nil {
				err = clones[n].task.Start(t.Context())
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	seen := map[uint64]bool{}
	for n, c := range clones {
		c.mustRestored(e)
		if s := c.goesOn(before); s.Hostname != fmt.Sprint("clone", n) {
			t.Errorf("hostname %q", s.Hostname)
		}
		c.inOwnCgroup()
		seen[netns(t, c.pid())] = true
	}
	if len(seen) != len(clones) {
		t.Errorf("%d network namespaces of %d clones", len(seen), len(clones))
	}
	clones[0].kill(unix.SIGKILL)
	clones[0].wait()
	clones[1].goesOn(before)
	a.goesOn(before)
}

// TestHooks: a createRuntime hook is told the restored task's pid while it can
// still change its namespaces.
func TestHooks(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "state")
	hook := func(_ context.Context, _ oci.Client, _ *containers.Container, s *specs.Spec) error {
		s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "/bin/cat >" + file}}}}
		return nil
	}
	a := start(t, shared, probeOf(hook))
	before := a.probe()
	hookSaw(t, file, a)
	e := a.mustCapture(capture.Request{})
	c := create(t, shared, probeOf(hook))
	hookSaw(t, file, c)
	if err := c.task.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	c.mustRestored(e)
	c.goesOn(before)
}

// hookSaw checks the state that the hook was given.
func hookSaw(t *testing.T, file string, c *container) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var s specs.State
	if err := json.Unmarshal(data, &s); err != nil {
		t.Fatal(err)
	}
	if s.ID != c.ID() || s.Pid != c.pid() {
		t.Errorf("the hook was told container %s, pid %d, want %s, %d", s.ID, s.Pid, c.ID(), c.pid())
	}
}

// TestTerminalClone: the clone of a container with a terminal has one of its own.
func TestTerminalClone(t *testing.T) {
	t.Parallel()
	w := probeOf()
	w.terminal, w.stdin = true, true
	a, c, before := cloneOf(t, shared, w)
	c.goesOn(before)
	for _, k := range []*container{c, a} {
		fmt.Fprintln(k.stdin, "hello", k.ID())
		k.out.waitFor(t, "read hello "+k.ID())
		if err := k.task.Resize(testContext(t), 77, 33); err != nil {
			t.Fatal(err)
		}
		k.out.waitFor(t, "size 77 33")
	}
	if strings.Contains(c.out.String(), a.ID()) || strings.Contains(a.out.String(), c.ID()) {
		t.Errorf("the terminals are mixed up: %q and %q", a.out, c.out)
	}
	fmt.Fprintln(c.stdin, "\x03") // interrupt: the probe does not handle it
	if got := c.wait(); got != 130 && got != 2 {
		t.Errorf("exit status after ^C: %d", got)
	}
}

// TestStdioClone: a clone's streams are its own, input included.
func TestStdioClone(t *testing.T) {
	t.Parallel()
	w := probeOf()
	w.stdin = true
	a, c, _ := cloneOf(t, shared, w)
	for _, k := range []*container{c, a} {
		fmt.Fprintln(k.stdin, "hello", k.ID())
		k.out.waitFor(t, "read hello "+k.ID())
	}
	if strings.Contains(c.out.String(), a.ID()) || strings.Contains(a.out.String(), c.ID()) {
		t.Errorf("the streams are mixed up: %q and %q", a.out, c.out)
	}
	c.stdin.Close()
	if err := c.task.CloseIO(testContext(t), closeStdin); err != nil {
		t.Fatal(err)
	}
	c.out.waitFor(t, "end of input")
}

// TestEndHeld ends restores that were created and never started.
func TestEndHeld(t *testing.T) {
	t.Parallel()
	n := newNode(t, harness.Options{})
	a := start(t, n, probeOf())
	before := a.probe()
	a.mustCapture(capture.Request{Stop: true})
	a.wait()
	a.delete()
	for _, how := range []string{"kill", "delete", "signal 0 and pause"} {
		t.Run(how, func(t *testing.T) {
			c := create(t, n, probeOf(func(_ context.Context, _ oci.Client, _ *containers.Container, s *specs.Spec) error {
				s.Process.Env = append(s.Process.Env[:len(s.Process.Env)-1], "SNAP_TEST="+a.t.Name())
				return nil
			}))
			ns := netns(t, c.pid())
			switch how {
			case "kill":
				c.kill(unix.SIGKILL)
				if got := c.wait(); got != 137 {
					t.Errorf("exit status %d", got)
				}
				c.delete()
			case "delete":
				deleteTask(t, c)
			default:
				if err := c.task.Pause(testContext(t)); err == nil {
					t.Error("a held restore was paused")
				}
				if err := c.task.Start(testContext(t)); err != nil {
					t.Fatal(err)
				}
				if r := c.record(); r.Outcome != checkpoint.Restore {
					t.Errorf("outcome %s", r.Outcome)
				}
				c.goesOn(before)
				c.kill(unix.SIGKILL)
				c.wait()
				c.delete()
			}
			noNetNS(t, ns)
			nothingLeft(t, n)
		})
	}
}

// TestOOMOfClone: limits and OOM events are those of the clone's own cgroup.
func TestOOMOfClone(t *testing.T) {
	t.Parallel()
	const script = `read go; x=a; while true; do x=$x$x; done`
	w := shell(script)
	w.stdin = true
	a := start(t, shared, w)
	e := a.mustCapture(capture.Request{})
	w = shell(script, oci.WithMemoryLimit(20<<20))
	w.stdin = true
	w.id = fmt.Sprintf("oom%d", serial.Add(1))
	r := recordEvents(t, shared, w.id)
	c := start(t, shared, w)
	c.mustRestored(e)
	fmt.Fprintln(c.stdin, "go")
	if got := c.wait(); got != 137 {
		t.Errorf("exit status %d", got)
	}
	c.delete()
	r.mustBe(t, "create", "start", "oom", "exit 137", "delete")
	if s := a.status(); s != "running" {
		t.Errorf("status of the original: %s", s)
	}
}

// TestRestoreOtherUser: a program of another user than root. Where root lacks CAP_SYS_RESOURCE,
// as in many containers, the set-up sees to it that CRIU can capture it.
func TestRestoreOtherUser(t *testing.T) {
	t.Parallel()
	w := shell("i=0; while :; do echo count $i; i=$((i+1)); sleep 0.1; done", oci.WithUserID(1000), oci.WithCapabilities(nil))
	original := start(t, shared, w)
	original.out.waitFor(t, "count 3\n")
	e := original.mustCapture(capture.Request{})
	clone := start(t, shared, w)
	clone.mustRestored(e)
	clone.out.waitFor(t, "count 20\n")
	if strings.Contains(clone.out.String(), "count 0\n") {
		t.Errorf("the clone began anew: %q", clone.out)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", clone.pid()))
	if err != nil || !strings.Contains(string(status), "\nUid:\t1000\t1000\t1000\t1000\n") {
		t.Errorf("the clone's ids: %s%v", status, err)
	}
}

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
	before = original.Probe()
	e := original.MustCapture(capture.Request{})
	clone = start(t, n, w)
	clone.MustRestored(e)
	return original, clone, before
}

func TestRestore(t *testing.T) {
	t.Parallel()
	a := start(t, shared, probeOf())
	a.MustBooted("no registered checkpoint")
	before := a.Probe()
	e := a.MustCapture(capture.Request{})
	a.GoesOn(before)

	b := create(t, shared, probeOf(oci.WithHostname("clone-b")))
	if b.Pid() == 0 {
		t.Fatal("Create told no pid")
	}
	ns := netns(t, b.Pid())
	if ns == netns(t, os.Getpid()) || ns == netns(t, a.Pid()) {
		t.Errorf("the network namespace %v is not the container's own", ns)
	}
	if s := b.Status(); s != "created" {
		t.Errorf("status before Start: %s", s)
	}
	pid := b.Pid()
	if err := b.Task.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	b.MustRestored(e)
	if b.Pid() != pid || netns(t, b.Pid()) != ns {
		t.Errorf("pid %d and network namespace %v became %d and %v at Start", pid, ns, b.Pid(), netns(t, b.Pid()))
	}
	s := b.GoesOn(before)
	if s.Hostname != "clone-b" {
		t.Errorf("hostname of the clone: %q", s.Hostname)
	}
	b.InOwnCgroup()
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
	c.GoesOn(before)
	for name, check := range map[string]func(*container){
		"exec": execs, "pause": pauseAndResume, "stats": hasStats, "update": updateMemory, "cgroup": (*container).InOwnCgroup,
	} {
		t.Run(name, func(t *testing.T) {
			defer func(was *testing.T) { c.T = was }(c.T)
			c.T = t
			check(c)
		})
	}
	c.Kill(unix.SIGUSR1)
	c.Out.WaitFor(t, "signal user defined signal 1")
	c.Kill(unix.SIGTERM)
	if got := c.Wait(); got != 7 {
		t.Errorf("exit status %d", got)
	}
	if !strings.Contains(c.Out.String(), "terminated "+before.Token) {
		t.Errorf("output %q", c.Out)
	}
	if strings.Contains(c.Out.String(), "booted") {
		t.Errorf("the clone booted: %q", c.Out)
	}
	if s := c.DeleteTask(); s.ExitCode() != 7 {
		t.Errorf("the deletion says %d", s.ExitCode())
	}
}

// TestGenerations captures a restored task, and restores from that.
func TestGenerations(t *testing.T) {
	t.Parallel()
	c := start(t, shared, probeOf())
	before := c.Probe()
	for range 3 {
		e := c.MustCapture(capture.Request{Stop: true})
		if got := c.Wait(); got != 137 {
			t.Errorf("exit status %d", got)
		}
		c = start(t, shared, probeOf())
		c.MustRestored(e)
		now := c.GoesOn(before)
		if now.Counter <= before.Counter {
			t.Errorf("the counter is %d, was %d", now.Counter, before.Counter)
		}
		before = now
		c.InOwnCgroup()
	}
}

// TestClonesAtOnce restores several from one checkpoint at the same time.
func TestClonesAtOnce(t *testing.T) {
	t.Parallel()
	a := start(t, shared, probeOf())
	before := a.Probe()
	e := a.MustCapture(capture.Request{})
	clones := make([]*container, 4)
	var wg sync.WaitGroup
	for n := range clones {
		clones[n] = newContainer(t, shared, probeOf(oci.WithHostname(fmt.Sprint("clone", n))))
		wg.Go(func() {
			err := clones[n].Create(want{})
			if err == nil {
				err = clones[n].Task.Start(t.Context())
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
	seen := map[harness.NetNS]bool{}
	for n, c := range clones {
		c.MustRestored(e)
		if s := c.GoesOn(before); s.Hostname != fmt.Sprint("clone", n) {
			t.Errorf("hostname %q", s.Hostname)
		}
		c.InOwnCgroup()
		seen[netns(t, c.Pid())] = true
	}
	if len(seen) != len(clones) {
		t.Errorf("%d network namespaces of %d clones", len(seen), len(clones))
	}
	clones[0].Kill(unix.SIGKILL)
	clones[0].Wait()
	clones[1].GoesOn(before)
	a.GoesOn(before)
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
	before := a.Probe()
	hookSaw(t, file, a)
	e := a.MustCapture(capture.Request{})
	c := create(t, shared, probeOf(hook))
	hookSaw(t, file, c)
	if err := c.Task.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	c.MustRestored(e)
	c.GoesOn(before)
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
	if s.ID != c.ID() || s.Pid != c.Pid() {
		t.Errorf("the hook was told container %s, pid %d, want %s, %d", s.ID, s.Pid, c.ID(), c.Pid())
	}
}

// TestTerminalClone: the clone of a container with a terminal has one of its own.
func TestTerminalClone(t *testing.T) {
	t.Parallel()
	w := probeOf()
	w.Terminal, w.Stdin = true, true
	a, c, before := cloneOf(t, shared, w)
	c.GoesOn(before)
	for _, k := range []*container{c, a} {
		fmt.Fprintln(k.Stdin, "hello", k.ID())
		k.Out.WaitFor(t, "read hello "+k.ID())
		if err := k.Task.Resize(testContext(t), 77, 33); err != nil {
			t.Fatal(err)
		}
		k.Out.WaitFor(t, "size 77 33")
	}
	if strings.Contains(c.Out.String(), a.ID()) || strings.Contains(a.Out.String(), c.ID()) {
		t.Errorf("the terminals are mixed up: %q and %q", a.Out, c.Out)
	}
	fmt.Fprintln(c.Stdin, "\x03") // interrupt: the probe does not handle it
	if got := c.Wait(); got != 130 && got != 2 {
		t.Errorf("exit status after ^C: %d", got)
	}
}

// TestStdioClone: a clone's streams are its own, input included.
func TestStdioClone(t *testing.T) {
	t.Parallel()
	w := probeOf()
	w.Stdin = true
	a, c, _ := cloneOf(t, shared, w)
	for _, k := range []*container{c, a} {
		fmt.Fprintln(k.Stdin, "hello", k.ID())
		k.Out.WaitFor(t, "read hello "+k.ID())
	}
	if strings.Contains(c.Out.String(), a.ID()) || strings.Contains(a.Out.String(), c.ID()) {
		t.Errorf("the streams are mixed up: %q and %q", a.Out, c.Out)
	}
	c.Stdin.Close()
	if err := c.Task.CloseIO(testContext(t), closeStdin); err != nil {
		t.Fatal(err)
	}
	c.Out.WaitFor(t, "end of input")
}

// TestEndHeld ends restores that were created and never started.
func TestEndHeld(t *testing.T) {
	t.Parallel()
	n := newNode(t, harness.Options{})
	a := start(t, n, probeOf())
	before := a.Probe()
	a.MustCapture(capture.Request{Stop: true})
	a.Wait()
	a.DeleteTask()
	for _, how := range []string{"kill", "delete", "signal 0 and pause"} {
		t.Run(how, func(t *testing.T) {
			c := create(t, n, probeOf(func(_ context.Context, _ oci.Client, _ *containers.Container, s *specs.Spec) error {
				s.Process.Env = append(s.Process.Env[:len(s.Process.Env)-1], "SNAP_TEST="+a.T.Name())
				return nil
			}))
			ns := netns(t, c.Pid())
			switch how {
			case "kill":
				c.Kill(unix.SIGKILL)
				if got := c.Wait(); got != 137 {
					t.Errorf("exit status %d", got)
				}
				c.DeleteTask()
			case "delete":
				deleteTask(t, c)
			default:
				if err := c.Task.Pause(testContext(t)); err == nil {
					t.Error("a held restore was paused")
				}
				if err := c.Task.Start(testContext(t)); err != nil {
					t.Fatal(err)
				}
				if r := c.Record(); r.Outcome != checkpoint.Restore {
					t.Errorf("outcome %s", r.Outcome)
				}
				c.GoesOn(before)
				c.Kill(unix.SIGKILL)
				c.Wait()
				c.DeleteTask()
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
	w.Stdin = true
	a := start(t, shared, w)
	e := a.MustCapture(capture.Request{})
	w = shell(script, oci.WithMemoryLimit(20<<20))
	w.Stdin = true
	w.ID = fmt.Sprintf("oom%d", serial())
	r := recordEvents(t, shared, w.ID)
	c := start(t, shared, w)
	c.MustRestored(e)
	fmt.Fprintln(c.Stdin, "go")
	if got := c.Wait(); got != 137 {
		t.Errorf("exit status %d", got)
	}
	c.DeleteTask()
	r.mustBe(t, "create", "start", "oom", "exit 137", "delete")
	if s := a.Status(); s != "running" {
		t.Errorf("status of the original: %s", s)
	}
}

// TestRestoreOtherUser: a program of another user than root. Where root lacks CAP_SYS_RESOURCE,
// as in many containers, the set-up sees to it that CRIU can capture it.
func TestRestoreOtherUser(t *testing.T) {
	t.Parallel()
	w := shell("i=0; while :; do echo count $i; i=$((i+1)); sleep 0.1; done", oci.WithUserID(1000), oci.WithCapabilities(nil))
	original := start(t, shared, w)
	original.Out.WaitFor(t, "count 3\n")
	e := original.MustCapture(capture.Request{})
	clone := start(t, shared, w)
	clone.MustRestored(e)
	clone.Out.WaitFor(t, "count 20\n")
	if strings.Contains(clone.Out.String(), "count 0\n") {
		t.Errorf("the clone began anew: %q", clone.Out)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", clone.Pid()))
	if err != nil || !strings.Contains(string(status), "\nUid:\t1000\t1000\t1000\t1000\n") {
		t.Errorf("the clone's ids: %s%v", status, err)
	}
}

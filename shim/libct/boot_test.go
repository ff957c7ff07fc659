package libct

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A life from boot to destroy. Nothing runs before Release, nothing is left after Destroy.
func TestBoot(t *testing.T) {
	b := newBundle(t, "echo begun; read line; echo got $line; exit 7")
	p := newPipes(t)
	c, proc, err := b.runtime.Boot(t.Context(), b.spec, p.files)
	must(t, err)
	t.Cleanup(b.remove)
	if pids, err := c.PIDs(); err != nil || !slices.Contains(pids, proc.PID()) {
		t.Errorf("processes %v, %v", pids, err)
	}
	if cmd, err := os.ReadFile(filepath.Join("/proc", itoa(proc.PID()), "comm")); err != nil || strings.HasPrefix(string(cmd), "sh") {
		t.Errorf("before Release the program runs: %q, %v", cmd, err)
	}
	if paths, err := c.CgroupPaths(); err != nil || len(paths) == 0 {
		t.Errorf("cgroups %v, %v", paths, err)
	}
	if !c.PrivatePIDNS() {
		t.Error("the pid namespace is not private")
	}
	must(t, c.Release())
	if s := p.line(t); s != "begun" {
		t.Errorf("%q", s)
	}
	if s := output(t, c, "hostname"); s != "snapped" {
		t.Errorf("hostname %q", s)
	}
	p.send(t, "this")
	if s := p.line(t); s != "got this" {
		t.Errorf("%q", s)
	}
	if code := waitFor(t, proc); code != 7 {
		t.Errorf("exit code %d", code)
	}
	if err := proc.Signal(unix.SIGTERM); !errdefs.IsNotFound(err) {
		t.Errorf("a signal to the dead: %v", err)
	}
	must(t, c.KillAll())
	must(t, c.Destroy())
	must(t, c.Destroy())
	b.wantNothing()
}

func TestExitCodes(t *testing.T) {
	b, _, c, init := begin(t, "echo begun; exec sleep 1000")
	for _, e := range []struct {
		args []string
		sig  unix.Signal
		want int
	}{
		{[]string{"true"}, 0, 0},
		{[]string{"false"}, 0, 1},
		{[]string{"sh", "-c", "exit 200"}, 0, 200},
		{[]string{"sleep", "1000"}, unix.SIGTERM, 143},
		{[]string{"sleep", "1000"}, unix.SIGKILL, 137},
	} {
		proc, err := c.Exec(t.Context(), execSpec(e.args...), newPipes(t).files)
		must(t, err)
		if e.sig != 0 {
			must(t, proc.Signal(e.sig))
		}
		if code := waitFor(t, proc); code != e.want {
			t.Errorf("%v ended with %d, want %d", e.args, code, e.want)
		}
	}
	if _, err := c.Exec(t.Context(), execSpec("no-such-program"), newPipes(t).files); err == nil || !strings.Contains(err.Error(), "no-such-program") {
		t.Errorf("a program that does not exist: %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Exec(gone, execSpec("true"), newPipes(t).files); !errors.Is(err, context.Canceled) {
		t.Errorf("for a caller who has gone: %v", err)
	}
	b.end(c, init)
	b.wantNothing()
}

func TestFreeze(t *testing.T) {
	b := newBundle(t, "while read line; do echo $line; done")
	p := newPipes(t)
	c, init := b.boot(p)
	p.send(t, "one")
	p.line(t)
	must(t, c.Thaw()) // Not frozen: nothing to do.
	must(t, c.Freeze())
	p.send(t, "two")
	if n := p.stdout.Buffered(); n != 0 {
		t.Errorf("%d bytes from a frozen container", n)
	}
	must(t, c.Thaw())
	if s := p.line(t); s != "two" {
		t.Errorf("%q", s)
	}
	// A frozen container can be killed.
	must(t, c.Freeze())
	b.end(c, init)
	b.wantNothing()
}

// Release returns before the program is executed, Freeze waits for it.
func TestFreezeAtOnce(t *testing.T) {
	b := newBundle(t, "sleep 1000")
	b.spec.OCI.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/bin/sleep", Args: []string{"sleep", "0.3"}}}}
	c, init := b.boot(newPipes(t))
	must(t, c.Freeze())
	if unfinished(init.PID()) {
		t.Error("frozen is libcontainer's init, not the program")
	}
	b.end(c, init)
	b.wantNothing()
}

func TestUpdate(t *testing.T) {
	b, _, c, init := begin(t, "echo begun; exec sleep 1000")
	limit, pids := int64(64<<20), int64(50)
	must(t, c.Update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}))
	must(t, c.Update(&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &pids}}))
	paths, err := c.CgroupPaths()
	must(t, err)
	for controller, files := range map[string]map[string]string{
		"memory": {"memory.limit_in_bytes": "67108864", "memory.max": "67108864"},
		"pids":   {"pids.max": "50"},
	} {
		dir, ok := paths[controller]
		if !ok {
			dir = paths[""]
		}
		found := false
		for file, want := range files {
			if data, err := os.ReadFile(filepath.Join(dir, file)); err == nil {
				found = true
				if got := strings.TrimSpace(string(data)); got != want {
					t.Errorf("%s is %s, want %s", file, got, want)
				}
			}
		}
		if !found {
			t.Errorf("no limit of %s in %s", controller, dir)
		}
	}
	shares := uint64(1)
	period := uint64(1)
	if err := c.Update(&specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: &shares, Period: &period}}); err == nil {
		t.Error("a period of 1 µs was accepted")
	}
	// What was refused is not kept for the next update.
	must(t, c.Update(&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &pids}}))
	b.end(c, init)
	b.wantNothing()
}

// After an error of Boot nothing is left.
func TestBootFails(t *testing.T) {
	b := newBundle(t, "true")
	b.spec.OCI.Process.Args = []string{"/no/such/program"}
	c, proc, err := b.runtime.Boot(t.Context(), b.spec, newPipes(t).files)
	if err == nil {
		// The program is looked up by init before or after the fifo, as
		// libcontainer likes; the shim must cope with both.
		if err = c.Release(); err == nil {
			waitFor(t, proc)
		}
		must(t, c.Destroy())
	} else if !strings.Contains(err.Error(), "/no/such/program") {
		t.Errorf("%v", err)
	}
	b.wantNothing()

	b = newBundle(t, "true")
	b.spec.OCI.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOTHING"}}
	if _, _, err := b.runtime.Boot(t.Context(), b.spec, newPipes(t).files); err == nil || !strings.Contains(err.Error(), "RLIMIT_NOTHING") {
		t.Errorf("%v", err)
	}
	b.wantNothing()

	b = newBundle(t, "true")
	b.spec.ID = "no/id"
	if _, _, err := b.runtime.Boot(t.Context(), b.spec, newPipes(t).files); !errdefs.IsInvalidArgument(err) {
		t.Errorf("%v", err)
	}
}

func TestIDIsTaken(t *testing.T) {
	b, _, c, init := begin(t, "echo begun; exec sleep 1000")
	if _, _, err := b.runtime.Boot(t.Context(), b.spec, newPipes(t).files); !errdefs.IsAlreadyExists(err) {
		t.Errorf("%v", err)
	}
	// The first one is none the worse.
	if s := output(t, c, "echo", "alive"); s != "alive" {
		t.Errorf("%q", s)
	}
	b.end(c, init)
	b.wantNothing()
}

// Remove, for a shim that died: of a running container, one that was never
// released, one of which only the cgroup is left, and one that is gone.
func TestRemove(t *testing.T) {
	b, _, c, init := begin(t, "echo begun; sleep 1000 & exec sleep 1000")
	must(t, c.Freeze())
	must(t, b.runtime.Remove(b.spec))
	if code := waitFor(t, init); code != 137 {
		t.Errorf("exit code %d", code)
	}
	b.wantNothing()

	b = newBundle(t, "true")
	_, init, err := b.runtime.Boot(t.Context(), b.spec, newPipes(t).files)
	must(t, err)
	must(t, b.runtime.Remove(b.spec))
	waitFor(t, init)
	b.wantNothing()

	b, _, _, init = begin(t, "echo begun; exec sleep 1000")
	must(t, os.RemoveAll(filepath.Join(b.runtime.Root, b.spec.ID)))
	must(t, b.runtime.Remove(b.spec))
	waitFor(t, init)
	b.wantNothing()

	must(t, b.runtime.Remove(b.spec))
	b.wantNothing()
}

// Without a pid namespace of its own, what a container leaves outlives its init.
func TestSharedPIDNamespace(t *testing.T) {
	b := newBundle(t, "sleep 1000 & echo begun; exit 3")
	var namespaces []specs.LinuxNamespace
	for _, ns := range b.spec.OCI.Linux.Namespaces {
		if ns.Type != specs.PIDNamespace {
			namespaces = append(namespaces, ns)
		}
	}
	b.spec.OCI.Linux.Namespaces = namespaces
	// Not in truth: the other tests are to find no orphans.
	adopts := 0
	defer func(was func() error) { adopt = was }(adopt)
	adopt = func() error { adopts++; return nil }
	p := newPipes(t)
	c, init := b.boot(p)
	if adopts != 1 {
		t.Errorf("asked %d times to adopt its orphans", adopts)
	}
	p.line(t)
	if code := waitFor(t, init); code != 3 {
		t.Errorf("exit code %d", code)
	}
	if c.PrivatePIDNS() {
		t.Error("the pid namespace is called private")
	}
	if pids, err := c.PIDs(); err != nil || len(pids) != 1 {
		t.Errorf("left are %v, %v", pids, err)
	}
	must(t, c.KillAll())
	must(t, c.KillAll())
	must(t, c.Destroy())
	b.wantNothing()
}

// An init that is killed ends, whatever is being started in its container.
func TestInitDiesDuringExecs(t *testing.T) {
	for round := range 20 {
		b := newBundle(t, "sleep 1000")
		c, init := b.boot(newPipes(t))
		var execs sync.WaitGroup
		for range 4 {
			p := newPipes(t)
			execs.Go(func() {
				if e, err := c.Exec(t.Context(), execSpec("true"), p.files); err == nil {
					_, _ = e.Wait()
				}
			})
		}
		// The start of a process takes some 20 ms.
		time.Sleep(time.Duration(round) * time.Millisecond)
		must(t, init.Signal(unix.SIGKILL))
		if code := waitFor(t, init); code != 137 {
			t.Errorf("exit code %d", code)
		}
		execs.Wait()
		must(t, c.Destroy())
		for deadline := time.Now().Add(20 * time.Second); slices.ContainsFunc(children(), unfinished); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("a child that nobody waits for is left")
			}
		}
	}
}

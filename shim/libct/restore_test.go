package libct

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// counter counts lines: its state is in its memory only.
const counter = "n=0; echo ready; while read line; do n=$((n+1)); echo $line $n; done; exit 5"

// checkpointed is a container that has counted to one, and its images.
func checkpointed(t *testing.T, d Dump) (*bundle, Dump) {
	t.Helper()
	b, p, c, init := begin(t, counter)
	p.send(t, "first")
	if s := p.line(t); s != "first 1" {
		t.Fatalf("%q", s)
	}
	must(t, c.Freeze())
	d = b.images(c, d)
	must(t, c.Thaw())
	if !d.Exit {
		p.send(t, "goes on")
		if s := p.line(t); s != "goes on 2" {
			t.Errorf("after the dump: %q", s)
		}
		must(t, c.KillAll())
	}
	if code := waitFor(t, init); code != 137 {
		t.Errorf("exit code %d", code)
	}
	must(t, c.Destroy())
	b.wantNothing()
	return b, d
}

// A whole restore: held with its true pid and namespaces, but not its memory;
// then going on where the checkpoint was taken.
func TestRestore(t *testing.T) {
	b, d := checkpointed(t, Dump{Detached: true})
	n := b.again(t)
	n.spec.OCI.Linux.Sysctl = map[string]string{"net.ipv4.ip_unprivileged_port_start": "42"}
	p := newPipes(t)
	rs, ns := n.hold(d, p)

	proc := filepath.Join("/proc", itoa(rs.PID()))
	link, err := os.Readlink(filepath.Join(proc, "ns/net"))
	must(t, err)
	if want, err := os.Readlink(nsPath(ns.net)); err != nil || link != want {
		t.Errorf("the held process is in %s, not in %s that was made for it: %v", link, want, err)
	}
	if exe, _ := os.Readlink(filepath.Join(proc, "exe")); strings.Contains(exe, "busybox") {
		t.Errorf("the held process is %s already", exe)
	}
	p.send(t, "second")
	if n := p.stdout.Buffered(); n != 0 {
		t.Error("a held process answers")
	}

	c, init := n.finish(rs, d)
	if init.PID() != rs.PID() {
		t.Errorf("held as %d, restored as %d", rs.PID(), init.PID())
	}
	if s := p.line(t); s != "second 2" {
		t.Errorf("the restored program says %q", s)
	}
	// CRIU gives a namespace that it joins the hostname of the images. That is
	// why those of a restore name the new one (criu.Stage).
	if s := output(t, c, "hostname"); s != "snapped" {
		t.Errorf("hostname %q", s)
	}
	if s := output(t, c, "ip", "link", "show", "lo"); !strings.Contains(s, "UP") {
		t.Errorf("the loopback interface is not up: %s", s)
	}
	if s := output(t, c, "cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start"); s != "42" {
		t.Errorf("sysctl %q", s)
	}
	n.wantOwnCgroup(init)
	if ok, err := rs.Abort(); ok || err != nil {
		t.Errorf("a finished restore was given up: %t, %v", ok, err)
	}
	// The restored container is as good as a booted one: frozen, captured again, killed.
	must(t, c.Freeze())
	again := n.images(c, Dump{Detached: true})
	must(t, c.Thaw())
	must(t, p.stdin.Close())
	if code := waitFor(t, init); code != 5 {
		t.Errorf("exit code %d", code)
	}
	must(t, c.Destroy())
	n.wantNothing()

	third := n.again(t)
	p = newPipes(t)
	rs, _ = third.hold(again, p)
	c, init = third.finish(rs, again)
	p.send(t, "third")
	if s := p.line(t); s != "third 3" {
		t.Errorf("the second generation says %q", s)
	}
	third.end(c, init)
	third.wantNothing()
}

// wantOwnCgroup makes sure that a restored process is in its own container's
// cgroup, not in that of the one that was captured.
func (b *bundle) wantOwnCgroup(p *Process) {
	b.t.Helper()
	data, err := os.ReadFile(filepath.Join("/proc", itoa(p.PID()), "cgroup"))
	must(b.t, err)
	if !strings.Contains(string(data), b.spec.ID) {
		b.t.Errorf("the restored process is in\n%s", data)
	}
}

// Images hold no network devices: the network namespace of those for the store is
// external, that of those that are as runc's is empty. Both can be restored, with
// a loopback interface that is up.
func TestNetworkOfImages(t *testing.T) {
	for _, detached := range []bool{false, true} {
		b, d := checkpointed(t, Dump{Detached: detached, Exit: !detached})
		for pattern, want := range map[string]bool{"netdev-*.img": false, "route-*.img": false, "descriptors.json": true} {
			found, err := filepath.Glob(filepath.Join(d.Dir, pattern))
			must(t, err)
			if (len(found) > 0) != want {
				t.Errorf("detached %t: %s: %v", detached, pattern, found)
			}
		}
		if detached {
			continue // TestRestore restores them.
		}
		n := b.again(t)
		p := newPipes(t)
		rs, err := n.runtime.Restore(t.Context(), n.spec, Images{Dir: d.Dir, Work: d.Work, Plain: true}, p.files)
		must(t, err)
		t.Cleanup(n.remove)
		c, init := n.finish(rs, d)
		p.send(t, "plain")
		if s := p.line(t); s != "plain 2" {
			t.Errorf("the restored program says %q", s)
		}
		if s := output(t, c, "ip", "link", "show", "lo"); !strings.Contains(s, "UP") {
			t.Errorf("the loopback interface is not up: %s", s)
		}
		n.end(c, init)
		n.wantNothing()
	}
}

// A held restore that is given up leaves nothing, and frees the ID.
func TestAbort(t *testing.T) {
	b, d := checkpointed(t, Dump{Detached: true})
	n := b.again(t)
	rs, ns := n.hold(d, newPipes(t))
	// A start that comes in between ends when all is gone, too.
	finished := make(chan error, 1)
	go func() {
		for !rs.claimed.Load() {
			time.Sleep(time.Microsecond)
		}
		_, _, err := rs.Finish(t.Context())
		if kerr := unix.Kill(rs.PID(), 0); !errors.Is(kerr, unix.ESRCH) {
			err = errors.Join(err, errors.New("the held process is still there"))
		}
		finished <- err
	}()
	if ok, err := rs.Abort(); !ok || err != nil {
		t.Errorf("%t, %v", ok, err)
	}
	if err := <-finished; err != ErrAborted { //nolint:errorlint // nothing but that
		t.Errorf("Finish: %v", err)
	}
	if err := unix.Kill(rs.PID(), 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("the held process: %v", err)
	}
	if ok, err := rs.Abort(); ok || err != nil {
		t.Errorf("a second time: %t, %v", ok, err)
	}
	if _, _, err := rs.Finish(t.Context()); !errors.Is(err, ErrAborted) {
		t.Errorf("Finish: %v", err)
	}
	n.wantNothing()

	// The namespaces outlive it, for the boot that follows.
	n.spec.OCI.Process.Args = []string{"/bin/ip", "link", "show", "lo"}
	ns.Join(&n.spec)
	p := newPipes(t)
	c, init := n.boot(p)
	if s := p.line(t); !strings.Contains(s, "UP") {
		t.Errorf("the network after a fallback: %q", s)
	}
	if code := waitFor(t, init); code != 0 {
		t.Errorf("exit code %d", code)
	}
	must(t, c.Destroy())
	n.wantNothing()
}

// The held process dies, by whatever hand. CRIU notices or it does not: Finish
// ends at its deadline at the latest, and nothing is left.
func TestFinishFails(t *testing.T) {
	b, d := checkpointed(t, Dump{Detached: true})
	n := b.again(t)
	rs, _ := n.hold(d, newPipes(t))
	must(t, unix.Kill(rs.PID(), unix.SIGKILL))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, _, err := rs.Finish(ctx); !errors.Is(err, ErrCRIU) && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	n.wantNothing()

	// A caller who has no time left.
	n = b.again(t)
	rs, _ = n.hold(d, newPipes(t))
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	c, p, err := rs.Finish(ctx)
	if err == nil { // CRIU was quicker than the select.
		n.end(c, p)
	} else if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	n.wantNothing()
}

// A kill while the restore is being finished ends it at once.
func TestKillDuringFinish(t *testing.T) {
	b, d := checkpointed(t, Dump{Detached: true})
	for range 4 {
		n := b.again(t)
		rs, _ := n.hold(d, newPipes(t))
		type result struct {
			c   *Container
			p   *Process
			err error
		}
		finished := make(chan result, 1)
		go func() {
			c, p, err := rs.Finish(t.Context())
			finished <- result{c, p, err}
		}()
		for !rs.claimed.Load() {
			time.Sleep(time.Microsecond)
		}
		must(t, rs.Kill())
		select {
		case r := <-finished:
			if r.err == nil { // It was finished before.
				if code := waitFor(t, r.p); code != 137 {
					t.Errorf("exit code %d", code)
				}
				must(t, r.c.Destroy())
			} else if !errors.Is(r.err, ErrCRIU) {
				t.Error(r.err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("Finish hangs")
		}
		n.wantNothing()
	}
}

// A restore that fails before it is held.
func TestRestoreFails(t *testing.T) {
	b, d := checkpointed(t, Dump{Detached: true})
	for name, damage := range map[string]func(t *testing.T, n *bundle, dir string){
		"no images":      func(t *testing.T, _ *bundle, dir string) { must(t, os.Remove(filepath.Join(dir, "inventory.img"))) },
		"no descriptors": func(t *testing.T, _ *bundle, dir string) { must(t, os.Remove(filepath.Join(dir, "descriptors.json"))) },
		"damaged pstree": func(t *testing.T, _ *bundle, dir string) {
			must(t, os.WriteFile(filepath.Join(dir, "pstree.img"), []byte("nothing"), 0o600))
		},
		"a failing hook": func(_ *testing.T, n *bundle, _ string) {
			n.spec.OCI.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/false"}}}
		},
		"a missing rootfs": func(t *testing.T, n *bundle, _ string) { must(t, os.RemoveAll(n.spec.OCI.Root.Path)) },
	} {
		t.Run(name, func(t *testing.T) {
			n := b.again(t)
			dir := t.TempDir()
			must(t, os.CopyFS(dir, os.DirFS(d.Dir)))
			damage(t, n, dir)
			ns, err := NewNamespaces(n.spec.OCI)
			must(t, err)
			defer ns.Close()
			ns.Join(&n.spec)
			rs, err := n.runtime.Restore(t.Context(), n.spec, Images{Dir: dir, Work: t.TempDir()}, newPipes(t).files)
			if err == nil {
				t.Error("restored")
				_, err = rs.Abort()
				must(t, err)
			}
			n.wantNothing()
		})
	}
}

// A caller who goes away while a hook runs: nothing is left either.
func TestRestoreIsCancelled(t *testing.T) {
	b, d := checkpointed(t, Dump{Detached: true})
	n := b.again(t)
	reached := filepath.Join(n.spec.Bundle, "reached")
	must(t, unix.Mkfifo(reached, 0o600))
	n.spec.OCI.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{
		Path: "/bin/sh", Args: []string{"sh", "-c", "echo >" + reached + "; exec sleep 1"},
	}}}
	ns, err := NewNamespaces(n.spec.OCI)
	must(t, err)
	defer ns.Close()
	ns.Join(&n.spec)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, _ = os.ReadFile(reached)
		cancel()
	}()
	if _, err := n.runtime.Restore(ctx, n.spec, Images{Dir: d.Dir, Work: t.TempDir()}, newPipes(t).files); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	n.wantNothing()
}

// Hooks run in their order, poststop ones only if others had run.
func TestHooks(t *testing.T) {
	b, d := checkpointed(t, Dump{Detached: true})
	n := b.again(t)
	said := filepath.Join(n.spec.Bundle, "said")
	say := func(word string) []specs.Hook {
		return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "cat >/dev/null; echo " + word + " >>" + said}}}
	}
	n.spec.OCI.Hooks = &specs.Hooks{Prestart: say("prestart"), CreateRuntime: say("createRuntime"), Poststop: say("poststop")} //nolint:staticcheck // runc still runs prestart hooks
	rs, _ := n.hold(d, newPipes(t))
	if data, err := os.ReadFile(said); err != nil || string(data) != "prestart\ncreateRuntime\n" {
		t.Errorf("when held: %q, %v", data, err)
	}
	if ok, err := rs.Abort(); !ok || err != nil {
		t.Errorf("%t, %v", ok, err)
	}
	if data, err := os.ReadFile(said); err != nil || string(data) != "prestart\ncreateRuntime\npoststop\n" {
		t.Errorf("when given up: %q, %v", data, err)
	}
	n.wantNothing()

	n = b.again(t)
	n.spec.OCI.Hooks = &specs.Hooks{Poststop: say("poststop too early")}
	if _, err := n.runtime.Restore(t.Context(), n.spec, Images{Dir: t.TempDir(), Work: t.TempDir()}, newPipes(t).files); err == nil {
		t.Error("restored from nothing")
	}
	if data, err := os.ReadFile(said); err != nil || strings.Contains(string(data), "early") {
		t.Errorf("when nothing had run: %q, %v", data, err)
	}
	n.wantNothing()
}

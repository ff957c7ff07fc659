package cri

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/store"
	"github.com/containerd-snap/snap/oci/spec"
	"github.com/containerd-snap/snap/shim/capture"
)

// record is the record of the container's start.
func (c *container) record() checkpoint.Start {
	c.t.Helper()
	s, err := store.Open(node.StoreRoot)
	if err != nil {
		c.t.Fatal(err)
	}
	r, err := s.Start(node.Namespace, c.id)
	if err != nil {
		c.t.Fatal(err)
	}
	return r
}

// capture takes a checkpoint of the container, which is removed with the test.
func (c *container) capture(req capture.Request) checkpoint.Entry {
	c.t.Helper()
	req.ID = c.id
	e, err := capture.Call(testContext(c.t), c.record().Address, req)
	if err != nil {
		c.t.Fatal(err)
	}
	s, err := store.Open(node.StoreRoot)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		if err := s.Remove(e.Digest); err != nil && !errors.Is(err, checkpoint.ErrNotFound) {
			c.t.Error(err)
		}
	})
	return e
}

// restored checks that the container was restored from the checkpoint.
func (c *container) restored(e checkpoint.Entry) {
	c.t.Helper()
	r := c.record()
	if r.Outcome != checkpoint.Restore || r.Decision.Digest != e.Digest {
		c.t.Errorf("%s: outcome %s from %q, want a restore from %s; decision %+v, fallback %q, error %q",
			c.config.GetMetadata().GetName(), r.Outcome, r.Decision.Digest, e.Digest, r.Decision, r.Fallback, r.Error)
	}
}

// booted checks that the container was booted, and that the record says why.
func (c *container) booted(reason string) {
	c.t.Helper()
	r := c.record()
	if r.Outcome != checkpoint.Boot || !strings.Contains(r.Decision.Reason, reason) {
		c.t.Errorf("%s: outcome %s, want boot with a reason that says %q; decision %+v", c.config.GetMetadata().GetName(), r.Outcome, reason, r.Decision)
	}
}

// TestRestoreInAnotherPod: a checkpoint of one pod's container fits that of
// another pod, which goes on there: at the pod's address, under its name, with
// its files, in its IPC, beside a container that boots and in the same shim.
func TestRestoreInAnotherPod(t *testing.T) {
	t.Parallel()
	for _, handler := range []string{snap, tuned} {
		t.Run(handler, func(t *testing.T) {
			t.Parallel()
			p := runPod(t, handler)
			a := p.startProbe("web")
			a.booted("no registered checkpoint")
			before := a.probe()
			e := a.capture(capture.Request{})
			a.goesOn(before)

			q := runPod(t, handler)
			side := q.startShell("side", forever)
			b := q.startProbe("web")
			b.restored(e)
			if s := b.goesOn(before); s.Hostname != q.config.GetHostname() {
				t.Errorf("the clone's hostname is %q, the pod's %q", s.Hostname, q.config.GetHostname())
			}
			a.goesOn(before)
			side.booted("")
			_, sandbox := q.status()
			for name, shared := range map[string]bool{"net": true, "ipc": true, "uts": true, "pid": false, "mnt": false} {
				if same(t, name, sandbox.Pid, side.pid(), b.pid()) != shared {
					t.Errorf("the %s namespace: shared %t, want %t", name, !shared, shared)
				}
			}
			if s := shimOf(t, b.pid()); s.PID != shimOf(t, sandbox.Pid).PID || shims(t, q.id) != 1 {
				t.Errorf("the clone's shim is %s", s)
			}
			if got := side.run("sh", "-c", "echo hello | nc -w 5 127.0.0.1 7000"); got != "hello\n" {
				t.Errorf("the clone answers its neighbour %q", got)
			}
			for file, want := range map[string]string{"/etc/hosts": q.config.GetHostname(), "/etc/hostname": q.config.GetHostname(), "/etc/resolv.conf": q.config.GetDnsConfig().GetServers()[0]} {
				if got := b.run("cat", file); !strings.Contains(got, want) {
					t.Errorf("%s is %q, want the pod's own, with %q", file, got, want)
				}
			}
			b.run("sh", "-c", "echo last words >/dev/termination-log")
			if err := unix.Kill(b.pid(), unix.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if st := b.ended(); st.GetExitCode() != 7 || !strings.Contains(st.GetReason(), "Error") {
				t.Errorf("exit code %d, reason %s", st.GetExitCode(), st.GetReason())
			}
			b.logHas("terminated " + before.Token)
			if log := strings.Join(b.log(), "\n"); strings.Contains(log, "booted") {
				t.Errorf("the clone's log says that it booted: %s", log)
			}
		})
	}
}

// TestRestoreAtRestart: a container that takes the place of one that has ended
// goes on from the checkpoint, time and again, in the same pod.
func TestRestoreAtRestart(t *testing.T) {
	t.Parallel()
	p := runPod(t, snap)
	c := p.startProbe("web")
	before := c.probe()
	e := c.capture(capture.Request{})
	for range 3 {
		if out, err := node.Snapctl(testContext(t), "explain", "-n", node.Namespace, c.id); err != nil || !strings.Contains(out.Stdout, c.id) {
			t.Errorf("snapctl explain: %v: %s", err, out.Stdout)
		}
		c.stop(5)
		if st := c.ended(); st.GetExitCode() != 7 {
			t.Errorf("exit code %d", st.GetExitCode())
		}
		c.remove()
		c = p.startProbe("web")
		c.restored(e)
		if s := c.goesOn(before); s.Hostname != p.config.GetHostname() {
			t.Errorf("hostname %q", s.Hostname)
		}
	}
}

// annotate gives a pod annotations of ours, beside one that is none.
func annotate(annotations map[string]string) func(*runtimeapi.PodSandboxConfig) {
	return func(c *runtimeapi.PodSandboxConfig) {
		c.Annotations = map[string]string{"example.com/other": "x"}
		for k, v := range annotations {
			c.Annotations[spec.Prefix+k] = v
		}
	}
}

// TestAnnotations: what a pod's annotations say reaches its containers, one of
// them where they name it, and the sandbox is not disturbed.
func TestAnnotations(t *testing.T) {
	t.Parallel()
	first := runPod(t, snap)
	web := first.startProbe("web")
	before := web.probe()
	e := web.capture(capture.Request{Name: "cri-annotations"})

	t.Run("never", func(t *testing.T) {
		p := runPod(t, snap, annotate(map[string]string{"restore": "Never"}))
		c := p.startProbe("web", testNamed(web))
		c.booted("Never")
	})
	t.Run("each its own", func(t *testing.T) {
		p := runPod(t, snap, annotate(map[string]string{"restore.side": "Never", "checkpoint.web": "cri-annotations", "checkpoint.other": "nobody"}))
		side := p.startShell("side", forever)
		side.booted("Never")
		c := p.startProbe("web", testNamed(web))
		c.restored(e)
		c.goesOn(before)
	})
	t.Run("a checkpoint that does not fit", func(t *testing.T) {
		p := runPod(t, snap, annotate(map[string]string{"checkpoint.side": "cri-annotations"}))
		p.refused("side", "cri-annotations", "args differ")
	})
	t.Run("required", func(t *testing.T) {
		p := runPod(t, snap, annotate(map[string]string{"restore.web": "Required"}))
		c := p.startProbe("web", testNamed(web))
		c.restored(e)
		c.goesOn(before)
		p.startShell("side", forever) // not addressed
	})
	t.Run("required and nothing fits", func(t *testing.T) {
		p := runPod(t, snap, annotate(map[string]string{"restore": "Required"}))
		p.refused("side", "no registered checkpoint")
	})
	t.Run("not valid", func(t *testing.T) {
		p := newPod(t, snap, annotate(map[string]string{"restore": "Perhaps"}))
		id, err := runtime.RunPodSandbox(testContext(t), p.config, snap)
		if p.id = id; err == nil || !strings.Contains(err.Error(), "Perhaps") || !strings.Contains(err.Error(), "IfPresent") {
			t.Errorf("the start says %v", err)
		}
	})
}

// refused checks that a container does not start, and that the error says why.
func (p *pod) refused(name string, words ...string) {
	p.t.Helper()
	c := p.create(name, busyboxImage, []string{"sh", "-c", forever})
	err := runtime.StartContainer(testContext(p.t), c.id)
	if err == nil {
		p.t.Fatalf("container %s starts", name)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			p.t.Errorf("the start of %s says %v, want %q", name, err, w)
		}
	}
}

// testNamed gives a container the fingerprint of a parent test's.
func testNamed(as *container) func(*runtimeapi.ContainerConfig) {
	return func(c *runtimeapi.ContainerConfig) { c.Envs[0].Value = as.config.GetEnvs()[0].GetValue() }
}

// TestOwnPodAddress: three pods at once, of whose programs each listens at the address of its
// pod alone, as the captured one did at that of its own.
func TestOwnPodAddress(t *testing.T) {
	t.Parallel()
	for _, handler := range []string{snap, tuned} { // a bridge's network, and point to point
		t.Run(handler, func(t *testing.T) {
			t.Parallel()
			a := runPod(t, handler).start("web", probeImage, []string{"/bin/probe", "-listen", "own:7000"})
			before := a.probe()
			e := a.capture(capture.Request{})
			a.goesOn(before)
			for n := range 3 {
				t.Run(strconv.Itoa(n), func(t *testing.T) {
					t.Parallel()
					p := runPod(t, handler)
					c := p.start("web", probeImage, []string{"/bin/probe", "-listen", "own:7000"}, testNamed(a))
					c.restored(e)
					if s := c.goesOn(before); s.Hostname != p.config.GetHostname() {
						t.Errorf("%s answers at the address of %s", s.Hostname, p.config.GetHostname())
					}
				})
			}
		})
	}
}

package cri

import (
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestPod runs two containers beside a sandbox: they share one shim, the pod's
// network, its host name and its IPC, and nothing else.
func TestPod(t *testing.T) {
	each(t, func(t *testing.T, handler string) {
		p := runPod(t, handler)
		web := p.startProbe("web")
		side := p.startShell("side", forever)
		st, sandbox := p.status()
		if st.GetState() != runtimeapi.PodSandboxState_SANDBOX_READY || st.GetRuntimeHandler() != handler {
			t.Errorf("the pod is %s, its handler %q", st.GetState(), st.GetRuntimeHandler())
		}
		pids := []int{sandbox.Pid, web.pid(), side.pid()}
		shim := shimOf(t, pids[0])
		if !strings.HasPrefix(filepath.Base(shim.Args[0]), "containerd-shim-"+strings.TrimSuffix(handler, "-tuned")) {
			t.Errorf("the pod's shim is %s", shim)
		}
		for _, pid := range pids {
			if s := shimOf(t, pid); s.PID != shim.PID {
				t.Errorf("process %d has the shim %s, the sandbox %s", pid, s, shim)
			}
		}
		if n := shims(t, p.id); n != 1 {
			t.Errorf("%d shims serve the pod", n)
		}
		for name, shared := range map[string]bool{"net": true, "ipc": true, "uts": true, "pid": false, "mnt": false} {
			if same(t, name, pids...) != shared {
				t.Errorf("the %s namespace: shared %t, want %t", name, !shared, shared)
			}
		}
		if got := strings.TrimSpace(side.run("hostname")); got != p.config.GetHostname() {
			t.Errorf("hostname %q, want %q", got, p.config.GetHostname())
		}
		if got := side.run("sh", "-c", "echo hello | nc -w 5 127.0.0.1 7000"); got != "hello\n" {
			t.Errorf("the other container's port answers %q", got)
		}
		if s, err := ask(t, p.address()); err != nil || s.Hostname != p.config.GetHostname() {
			t.Errorf("the pod's address answers %+v, %v", s, err)
		}
	})
}

// TestDaemonRestarts kills containerd under running pods: the next one finds them
// as they are, and knows what has ended. Nothing runs beside this test.
func TestDaemonRestarts(t *testing.T) {
	type running struct {
		p       *pod
		c, ends *container
		before  probeState
	}
	pods := map[string]running{}
	for _, handler := range []string{snap, runc} {
		p := runPod(t, handler)
		r := running{p: p, c: p.startProbe("web"), ends: p.startShell("ends", forever)}
		r.before = r.c.probe()
		pods[handler] = r
	}
	pids := map[string]int{}
	for handler, r := range pods {
		pids[handler] = r.ends.pid()
	}
	if err := node.Kill(testContext(t)); err != nil {
		t.Fatal(err)
	}
	for handler, pid := range pids {
		if err := unix.Kill(pid, unix.SIGTERM); err != nil {
			t.Errorf("%s: %v", handler, err)
		}
	}
	if err := node.Restart(testContext(t)); err != nil {
		t.Fatal(err)
	}
	for handler, r := range pods {
		eventually(t, func() error {
			_, err := runtime.PodSandboxStatus(testContext(t), r.p.id, false)
			return err
		})
		if st, _ := r.p.status(); st.GetState() != runtimeapi.PodSandboxState_SANDBOX_READY {
			t.Errorf("%s: the pod is %s", handler, st.GetState())
		}
		// Its exit code is 3, or 255: containerd takes a shim whose only task has
		// ended for a leaked one, unless the exit is told to it before it looks.
		r.ends.ended()
		r.c.goesOn(r.before)
		r.c.run("kill", "-USR1", "1")
		r.c.logHas("signal user defined signal 1")
		r.c.stop(20)
		if st := r.c.ended(); st.GetExitCode() != 7 {
			t.Errorf("%s: exit code %d", handler, st.GetExitCode())
		}
	}
}

// TestFeatures: what the kubelet is told that a handler can do.
func TestFeatures(t *testing.T) {
	t.Parallel()
	st, err := runtime.Status(testContext(t), false)
	if err != nil {
		t.Fatal(err)
	}
	features := map[string]*runtimeapi.RuntimeHandlerFeatures{}
	for _, h := range st.GetRuntimeHandlers() {
		features[h.GetName()] = h.GetFeatures()
	}
	for _, handler := range []string{snap, tuned} {
		if !proto.Equal(features[handler], features[runc]) {
			t.Errorf("%s has the features %v, the stock runtime %v", handler, features[handler], features[runc])
		}
	}
	if !features[snap].GetRecursiveReadOnlyMounts() {
		t.Errorf("recursive read-only mounts are missing: %v", features[snap])
	}
}

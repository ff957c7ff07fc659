package cri

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/containerd-snap/snap/test/harness"
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

// shims counts the shim processes that were started for a sandbox.
func shims(t *testing.T, id string) int {
	t.Helper()
	all, err := harness.Processes()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, p := range all {
		if len(p.Args) > 0 && strings.Contains(p.Args[0], "containerd-shim-") && strings.Contains(strings.Join(p.Args, " "), "-id "+id) {
			n++
		}
	}
	return n
}

// same says that processes are in the same namespace of a kind.
func same(t *testing.T, kind string, pids ...int) bool {
	t.Helper()
	inodes := map[uint64]bool{}
	for _, pid := range pids {
		var st unix.Stat_t
		if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/%s", pid, kind), &st); err != nil {
			t.Fatal(err)
		}
		inodes[st.Ino] = true
	}
	return len(inodes) == 1
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

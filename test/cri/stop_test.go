package cri

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestStop stops containers that end when they are told to, that do not, and
// that have ended by themselves.
func TestStop(t *testing.T) {
	each(t, func(t *testing.T, handler string) {
		p := runPod(t, handler)
		obeys := p.startShell("obeys", "trap 'sleep 0.3; echo bye; exit 3' TERM; echo ready; while :; do sleep 0.05; done")
		stubborn := p.startShell("stubborn", "trap '' TERM; echo ready; while :; do sleep 0.05; done")
		ends := p.startShell("ends", "exit 5")
		obeys.logHas("ready")
		stubborn.logHas("ready")

		obeys.stop(20)
		if st := obeys.ended(); st.GetExitCode() != 3 || st.GetReason() != "Error" {
			t.Errorf("the container that obeys: exit code %d, reason %s", st.GetExitCode(), st.GetReason())
		}
		obeys.logHas("bye")
		began := time.Now()
		stubborn.stop(1)
		if st := stubborn.ended(); st.GetExitCode() != 137 || time.Since(began) < time.Second {
			t.Errorf("the container that does not obey: exit code %d after %s", st.GetExitCode(), time.Since(began))
		}
		if st := ends.ended(); st.GetExitCode() != 5 {
			t.Errorf("the container that ends: exit code %d", st.GetExitCode())
		}
		ends.stop(1) // again, and it is no error
	})
}

// TestStopSignal: the signal that a pod asks for takes the place of SIGTERM.
func TestStopSignal(t *testing.T) {
	each(t, func(t *testing.T, handler string) {
		p := runPod(t, handler)
		c := p.startShell("a", "trap 'exit 4' USR1; echo ready; while :; do sleep 0.05; done", func(c *runtimeapi.ContainerConfig) {
			c.StopSignal = runtimeapi.Signal_SIGNAL_SIGUSR1
		})
		c.logHas("ready")
		c.stop(20)
		if st := c.ended(); st.GetExitCode() != 4 {
			t.Errorf("exit code %d", st.GetExitCode())
		}
	})
}

// TestRestart replaces a container by a new one of its name, as a kubelet does
// when a container has ended: the pod stays, with its address and its shim.
func TestRestart(t *testing.T) {
	each(t, func(t *testing.T, handler string) {
		p := runPod(t, handler)
		other := p.startShell("other", forever)
		address, _, shim := p.address(), "", shimOf(t, other.pid())
		for n := range 3 {
			c := p.startProbe("web")
			if s := c.probe(); s.PID != 1 {
				t.Errorf("round %d: %+v", n, s)
			}
			if got := shimOf(t, c.pid()); got.PID != shim.PID {
				t.Errorf("round %d: the container's shim is %s, was %s", n, got, shim)
			}
			if err := unix.Kill(c.pid(), unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if st := c.ended(); st.GetExitCode() != 137 {
				t.Errorf("round %d: exit code %d", n, st.GetExitCode())
			}
			c.remove()
		}
		if got := p.address(); got != address {
			t.Errorf("the pod's address is %s, was %s", got, address)
		}
		other.run("true")
	})
}

// TestRemove removes what a pod consists of in each order that CRI allows.
func TestRemove(t *testing.T) {
	type step struct {
		name string
		do   func(p *pod, a, b *container) error
	}
	stopA := step{"stop a", func(p *pod, a, _ *container) error { return runtime.StopContainer(testContext(p.t), a.id, 1) }}
	removeA := step{"remove a", func(p *pod, a, _ *container) error { return runtime.RemoveContainer(testContext(p.t), a.id) }}
	removeB := step{"remove b", func(p *pod, _, b *container) error { return runtime.RemoveContainer(testContext(p.t), b.id) }}
	stopPod := step{"stop pod", func(p *pod, _, _ *container) error { return runtime.StopPodSandbox(testContext(p.t), p.id) }}
	removePod := step{"remove pod", func(p *pod, _, _ *container) error { return runtime.RemovePodSandbox(testContext(p.t), p.id) }}
	killPause := step{"kill pause", func(p *pod, _, _ *container) error {
		_, i := p.status()
		if err := unix.Kill(i.Pid, unix.SIGKILL); err != nil {
			return err
		}
		eventually(p.t, func() error {
			if st, _ := p.status(); st.GetState() != runtimeapi.PodSandboxState_SANDBOX_NOTREADY {
				return fmt.Errorf("the pod is %s", st.GetState())
			}
			return nil
		})
		return nil
	}}
	for _, order := range [][]step{
		{stopA, removeA, removeB, stopPod, removePod},
		{removeB, removeA, removePod}, // running ones
		{stopPod, removePod},          // with containers in it
		{removePod},                   // with running containers in it
		{stopPod, removeA, removePod},
		{killPause, removeA, removeB, stopPod, removePod},
		{killPause, removePod},
	} {
		names := make([]string, len(order))
		for i, s := range order {
			names[i] = s.name
		}
		t.Run(strings.Join(names, ", "), func(t *testing.T) {
			each(t, func(t *testing.T, handler string) {
				p := runPod(t, handler)
				a, b := p.startShell("a", forever), p.startShell("b", "sleep 1000 & "+forever)
				for _, s := range order {
					if err := s.do(p, a, b); err != nil {
						t.Errorf("%s: %v", s.name, err)
					}
				}
				p.gone(p.id, a.id, b.id)
			})
		})
	}
}

// gone waits until nothing is left of the containers, or sandboxes, that were removed.
func (p *pod) gone(ids ...string) {
	p.t.Helper()
	eventually(p.t, func() error {
		left, err := node.Leftovers()
		if err != nil {
			return err
		}
		has := func(text string) bool {
			return slices.ContainsFunc(ids, func(id string) bool {
				return strings.Contains(text, id) || p.handler != runc && strings.Contains(text, socketName(id))
			})
		}
		for line := range strings.Lines(left.String()) {
			if has(line) {
				return fmt.Errorf("left over: %s", line)
			}
		}
		return nil
	})
}

// socketName is that of a shim's socket.
func socketName(id string) string {
	sum := sha256.Sum256([]byte(filepath.Join(node.Address, node.Namespace, id)))
	return hex.EncodeToString(sum[:])
}

// TestSharedPIDs: one pid namespace for the pod. Its first process is pause,
// which buries what a container leaves.
func TestSharedPIDs(t *testing.T) {
	each(t, func(t *testing.T, handler string) {
		p := runPod(t, handler, func(c *runtimeapi.PodSandboxConfig) {
			c.Linux.SecurityContext.NamespaceOptions.Pid = runtimeapi.NamespaceMode_POD
		})
		a, b := p.startShell("a", forever), p.startShell("b", forever)
		_, sandbox := p.status()
		if !same(t, "pid", sandbox.Pid, a.pid(), b.pid()) {
			t.Error("the pid namespace is not shared")
		}
		if got := a.run("cat", "/proc/1/comm"); got != "pause\n" {
			t.Errorf("the first process is %q", got)
		}
		// An orphan: its parent ends at once, itself a moment later.
		b.run("sh", "-c", "(sleep 0.2 & echo $! >/tmp/orphan)")
		eventually(t, func() error {
			if out := a.run("sh", "-c", "ps -o stat,args | grep -E '[s]leep 0.2|^[Z]' || true"); out != "" {
				return fmt.Errorf("left: %s", out)
			}
			return nil
		})
		// What a container forked goes with it, though its namespace stays.
		a.run("sh", "-c", "setsid sleep 777 >/dev/null 2>&1 </dev/null &")
		a.stop(1)
		a.remove()
		eventually(t, func() error {
			if out := b.run("sh", "-c", "ps -o args | grep '[s]leep 777' || true"); out != "" {
				return fmt.Errorf("left: %s", out)
			}
			return nil
		})
		b.run("true")
	})
}

// TestTargetPIDs: a container in the pid namespace of another, as a debugging
// container has it.
func TestTargetPIDs(t *testing.T) {
	each(t, func(t *testing.T, handler string) {
		p := runPod(t, handler)
		a := p.startProbe("a")
		b := p.startShell("b", forever, func(c *runtimeapi.ContainerConfig) {
			c.Linux.SecurityContext.NamespaceOptions = &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_TARGET, TargetId: a.id}
		})
		if got := b.run("cat", "/proc/1/comm"); got != "probe\n" {
			t.Errorf("the first process is %q", got)
		}
		b.stop(1)
		b.remove()
		a.probe()
	})
}

// TestHostNamespaces: a pod in the network, pid and IPC namespaces of its node.
func TestHostNamespaces(t *testing.T) {
	each(t, func(t *testing.T, handler string) {
		p := runPod(t, handler, func(c *runtimeapi.PodSandboxConfig) {
			c.Hostname = ""
			c.Linux.SecurityContext.NamespaceOptions = &runtimeapi.NamespaceOption{
				Network: runtimeapi.NamespaceMode_NODE, Pid: runtimeapi.NamespaceMode_NODE, Ipc: runtimeapi.NamespaceMode_NODE,
			}
		})
		c := p.startShell("a", "setsid sleep 778 & "+forever)
		for _, kind := range []string{"net", "pid", "ipc"} {
			if !same(t, kind, os.Getpid(), c.pid()) {
				t.Errorf("the %s namespace is not the node's", kind)
			}
		}
		if st, _ := p.status(); st.GetNetwork().GetIp() != "" {
			t.Errorf("the pod has the address %s", st.GetNetwork().GetIp())
		}
		host, err := os.Hostname()
		if got := c.run("hostname"); err != nil || got != host+"\n" {
			t.Errorf("hostname %q, the node's is %q, %v", got, host, err)
		}
		// No pid namespace ends what the container started: the runtime does.
		c.stop(5)
		if st := c.ended(); st.GetExitCode() != 3 {
			t.Errorf("exit code %d", st.GetExitCode())
		}
		c.remove()
		p.gone(c.id)
	})
}

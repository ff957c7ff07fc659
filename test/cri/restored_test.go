package cri

import (
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/containerd-snap/snap/shim/capture"
)

// TestRestoredContainer does with a restored container what a kubelet does with
// a booted one.
func TestRestoredContainer(t *testing.T) {
	t.Parallel()
	limited := func(c *runtimeapi.ContainerConfig) { c.Linux.Resources = limits(200<<20, 80000, 512) }
	a := runPod(t, snap).startProbe("web", limited)
	before := a.probe()
	e := a.capture(capture.Request{})

	p := runPod(t, snap)
	c := p.startProbe("web", limited)
	c.restored(e)
	c.goesOn(before)
	c.streams()
	c.exitCode()
	c.terminal()
	p.forward()
	c.hasStats(1 << 19)
	p.hasStats(1<<19, 1)
	c.hasLimits(200<<20, 80000, 512)
	c.update(100<<20, 50000, 256)
	c.rotate(func() { c.run("kill", "-USR1", "1") }, "signal user defined signal 1")
	c.goesOn(before)
	c.stop(20)
	if st := c.ended(); st.GetExitCode() != 7 {
		t.Errorf("exit code %d", st.GetExitCode())
	}
	c.logHas("terminated " + before.Token)
	c.remove()
	p.gone(c.id)
}

// TestRestoreVariants: which containers of pods are restored, and why others are not.
func TestRestoreVariants(t *testing.T) {
	t.Parallel()
	shared := t.TempDir()
	for name, v := range map[string]struct {
		pod       func(*runtimeapi.PodSandboxConfig)
		container func(*runtimeapi.ContainerConfig)
		// boots is why the second container boots; empty if it is restored.
		boots string
	}{
		"seccomp, no new privileges, few capabilities": {container: withSecurity(func(c *runtimeapi.LinuxContainerSecurityContext) {
			c.Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
			c.NoNewPrivs = true
			c.Capabilities = &runtimeapi.Capability{DropCapabilities: []string{"ALL"}, AddCapabilities: []string{"DAC_OVERRIDE"}}
		})},
		"privileged": {
			pod:       func(c *runtimeapi.PodSandboxConfig) { c.Linux.SecurityContext.Privileged = true },
			container: withSecurity(func(c *runtimeapi.LinuxContainerSecurityContext) { c.Privileged = true }),
		},
		"read-only root and a volume": {container: func(c *runtimeapi.ContainerConfig) {
			c.Linux.SecurityContext.ReadonlyRootfs = true
			c.Mounts = append(c.Mounts, &runtimeapi.Mount{ContainerPath: "/data", HostPath: shared})
			c.Command = append(c.Command, "-file", "/data/counter")
		}},
		"an empty volume": {container: func(c *runtimeapi.ContainerConfig) {
			c.Mounts = append(c.Mounts, &runtimeapi.Mount{ContainerPath: "/data", HostPath: t.TempDir()})
		}},
		"terminal": {container: func(c *runtimeapi.ContainerConfig) { c.Tty, c.Stdin = true, true }},
		"sysctls": {pod: func(c *runtimeapi.PodSandboxConfig) {
			c.Linux.Sysctls = map[string]string{"net.ipv4.ip_unprivileged_port_start": "2000"}
		}},
		"one pid namespace": {
			pod: func(c *runtimeapi.PodSandboxConfig) {
				c.Linux.SecurityContext.NamespaceOptions.Pid = runtimeapi.NamespaceMode_POD
			},
			boots: "pid namespace",
		},
		"the node's network": {pod: func(c *runtimeapi.PodSandboxConfig) {
			c.Hostname = ""
			c.Linux.SecurityContext.NamespaceOptions.Network = runtimeapi.NamespaceMode_NODE
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if v.pod == nil {
				v.pod = func(*runtimeapi.PodSandboxConfig) {}
			}
			if v.container == nil {
				v.container = func(*runtimeapi.ContainerConfig) {}
			}
			if v.boots != "" {
				register(t)
				c := runPod(t, snap, v.pod).startProbe("web", v.container)
				c.booted(v.boots)
				c.probe()
				return
			}
			a := runPod(t, snap, v.pod).startProbe("web", v.container)
			before := a.probe()
			// Stopped: its port and its files may be the next one's.
			e := a.capture(capture.Request{Stop: true})
			a.ended()
			b := runPod(t, snap, v.pod).startProbe("web", v.container)
			b.restored(e)
			b.goesOn(before)
		})
	}
}

// register takes a checkpoint: with an empty store there is nothing to decide.
func register(t *testing.T) {
	t.Helper()
	c := runPod(t, snap).startProbe("other")
	c.probe()
	c.capture(capture.Request{Stop: true})
}

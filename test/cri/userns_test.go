package cri

import (
	"os"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestUserNamespace: a pod with a user namespace of its own (hostUsers: false)
// is root in it and nobody outside.
func TestUserNamespace(t *testing.T) {
	each(t, func(t *testing.T, handler string) {
		if handler == snap {
			register(t)
		}
		ids := []*runtimeapi.IDMapping{{HostId: 1 << 20, ContainerId: 0, Length: 1 << 16}}
		userns := &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD, Uids: ids, Gids: ids}
		p := runPod(t, handler, func(c *runtimeapi.PodSandboxConfig) {
			c.Linux.SecurityContext.NamespaceOptions.UsernsOptions = userns
		})
		c := p.startProbe("web")
		_, sandbox := p.status()
		if !same(t, "user", sandbox.Pid, c.pid()) || same(t, "user", os.Getpid(), c.pid()) {
			t.Error("the user namespace is not the pod's own")
		}
		if got := c.run("cat", "/proc/self/uid_map"); strings.Join(strings.Fields(got), " ") != "0 1048576 65536" {
			t.Errorf("user ids are mapped %q", got)
		}
		c.run("sh", "-c", "id -u | grep -x 0 && touch /root-made && hostname")
		c.probe()
		if handler == snap {
			c.booted("user namespace")
		}
		c.stop(5)
		if st := c.ended(); st.GetExitCode() != 7 {
			t.Errorf("exit code %d", st.GetExitCode())
		}
	})
}

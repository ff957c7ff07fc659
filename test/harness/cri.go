package harness

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// CRINamespace is the containerd namespace in which the CRI plugin keeps
// everything; it cannot be chosen.
const CRINamespace = "k8s.io"

// CRI makes a node serve Kubernetes' container runtime interface, at the socket
// of its containerd. The network plugins come from the set-up.
//
// Such a node makes network interfaces and packet filter rules in the network
// namespace of the process that starts it: see EnterPrivateNetwork.
type CRI struct {
	// PauseImage is the image of pods' sandboxes.
	PauseImage string
	// Handlers are what RunPodSandbox may ask for.
	Handlers []Handler
}

// Handler is a runtime handler.
type Handler struct {
	Name string
	// Runtime is the runtime's name, as in Runtime.
	Runtime string
	// Options is its options table in TOML; empty for none.
	Options string
	// Network is the CNI configuration list of its pods, in JSON.
	Network string
}

// cniCache is where containerd keeps what CNI plugins answered; it cannot be chosen.
const cniCache = "/var/lib/cni"

// config is the part of containerd's configuration that CRI needs.
func (c *CRI) config(n *Node) string {
	var b strings.Builder
	fmt.Fprintf(&b, `
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = %q
[plugins."io.containerd.grpc.v1.cri"]
stream_server_address = "127.0.0.1"
stream_server_port = "0"
[plugins."io.containerd.cri.v1.runtime"]
# Root may lack CAP_SYS_RESOURCE.
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
enable_cdi = false
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = [%q]
conf_dir = %q
[plugins."io.containerd.cri.v1.runtime".containerd]
default_runtime_name = %q
`, c.PauseImage, filepath.Join(n.tools.tools, "cni"), n.networkDir(c.Handlers[0]), c.Handlers[0].Name)
	for _, h := range c.Handlers {
		fmt.Fprintf(&b, `
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.%[1]q]
runtime_type = %[2]q
pod_annotations = ["io.containerd.snap.v2/*"]
cni_conf_dir = %[3]q
`, h.Name, h.Runtime, n.networkDir(h))
		if h.Options != "" {
			fmt.Fprintf(&b, "[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.%q.options]\n%s\n", h.Name, h.Options)
		}
	}
	return b.String()
}

func (n *Node) networkDir(h Handler) string { return n.path("cni", h.Name) }

// prepare makes what the configuration names.
func (c *CRI) prepare(n *Node) error {
	if len(c.Handlers) == 0 {
		return errors.New("a node with CRI has at least one handler")
	}
	for _, plugin := range []string{"bridge", "loopback"} {
		if _, err := program(filepath.Join(n.tools.tools, "cni", plugin), "make setup"); err != nil {
			return err
		}
	}
	for _, h := range c.Handlers {
		if err := os.MkdirAll(n.networkDir(h), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(n.networkDir(h), "10-net.conflist"), []byte(h.Network), 0o600); err != nil {
			return err
		}
	}
	// In our mount namespace only: the host's own is not touched.
	if err := os.MkdirAll(cniCache, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", cniCache, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0700"); err != nil {
		return fmt.Errorf("mount a tmpfs on %s: %w", cniCache, err)
	}
	return nil
}

// release undoes what prepare did outside of the node's directory.
func (c *CRI) release() error {
	if err := unix.Unmount(cniCache, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("unmount %s: %w", cniCache, err)
	}
	return nil
}

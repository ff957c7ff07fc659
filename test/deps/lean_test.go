package deps

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// linked are the modules, besides the standard library and ours, that the shim
// is made of. A further one costs each container's start and each shim's memory:
// look at out/footprint.json, which the test of that name writes, before and after, and add it here with its reason in
// docs/dependencies.md if it is worth that. The lists that TestImportRules holds
// name single packages that must not come with one of these.
var linked = []string{
	"github.com/aperturerobotics/protobuf-go-lite", // libcontainer's, for CRIU's messages
	"github.com/checkpoint-restore/go-criu/v8",
	"github.com/cilium/ebpf", // device rules of cgroup v2
	"github.com/containerd/cgroups/v3",
	"github.com/containerd/console",
	"github.com/containerd/containerd/api",
	"github.com/containerd/containerd/v2",
	"github.com/containerd/continuity", // containerd's mount package
	"github.com/containerd/errdefs",
	"github.com/containerd/errdefs/pkg",
	"github.com/containerd/fifo",
	"github.com/containerd/go-runc", // containerd's shim package
	"github.com/containerd/log",
	"github.com/containerd/plugin",
	"github.com/containerd/ttrpc",
	"github.com/containerd/typeurl/v2",
	"github.com/coreos/go-systemd/v22",
	"github.com/cyphar/filepath-securejoin",
	"github.com/docker/go-units",
	"github.com/godbus/dbus/v5", // cgroups made by systemd
	"github.com/mdlayher/socket",
	"github.com/mdlayher/vsock", // containerd's shim package
	"github.com/moby/sys/capability",
	"github.com/moby/sys/mountinfo",
	"github.com/moby/sys/user",
	"github.com/moby/sys/userns",
	"github.com/mrunalp/fileutils",
	"github.com/opencontainers/cgroups",
	"github.com/opencontainers/go-digest",
	"github.com/opencontainers/image-spec",
	"github.com/opencontainers/runc",
	"github.com/opencontainers/runtime-spec",
	"github.com/opencontainers/selinux",
	"github.com/pelletier/go-toml/v2",
	"github.com/seccomp/libseccomp-golang",
	"github.com/sirupsen/logrus",
	"github.com/vishvananda/netlink",
	"github.com/vishvananda/netns",
	"golang.org/x/net",
	"golang.org/x/sync",
	"golang.org/x/sys",
	"google.golang.org/genproto/googleapis/rpc",
	"google.golang.org/grpc",
	"google.golang.org/protobuf",
}

// TestLeanShim: the shim is made of what is listed, and of nothing else.
func TestLeanShim(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "list", "-tags", "seccomp,no_grpc", "-deps",
		"-f", "{{if not .Standard}}{{.Module.Path}}{{end}}", "./cmd/containerd-shim-snap-v2")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	found := strings.Fields(string(out))
	slices.Sort(found)
	found = slices.Compact(found)
	for _, m := range found {
		if m != module && !slices.Contains(linked, m) {
			t.Errorf("the shim links %s now", m)
		}
	}
	for _, m := range linked {
		if !slices.Contains(found, m) {
			t.Errorf("the shim no longer links %s: take it off the list", m)
		}
	}
}

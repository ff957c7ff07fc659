package integration

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/test/harness"
)

// hostPIDs makes a container share the host's process ids.
func hostPIDs(ctx context.Context, c oci.Client, k *containers.Container, s *specs.Spec) error {
	return oci.WithHostNamespace(specs.PIDNamespace)(ctx, c, k, s)
}

// hideCRIU takes CRIU off the node's PATH until the test ends.
func hideCRIU(t *testing.T, c *container) {
	t.Helper()
	replaceCRIU(t, c.node, "")
}

// replaceCRIU makes a node find another program as criu, or none, until the test ends.
func replaceCRIU(t *testing.T, n *harness.Node, program string) {
	t.Helper()
	link := filepath.Join(n.Bin, "criu")
	old, err := os.Readlink(link)
	if err != nil {
		t.Fatal(err)
	}
	point := func(to string) {
		if err := os.Remove(link); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if to != "" {
			if err := os.Symlink(to, link); err != nil {
				t.Fatal(err)
			}
		}
	}
	point(program)
	t.Cleanup(func() { point(old) })
}

// fillStore puts a file system over the store's drafts that is full, until the test ends.
func fillStore(t *testing.T, c *container) {
	t.Helper()
	tinyMount(t, filepath.Join(c.node.StoreRoot, "drafts"), "size=64k")
}

// tinyMount mounts a small tmpfs until the test ends.
func tinyMount(t *testing.T, dir, options string) {
	t.Helper()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options+",mode=0700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

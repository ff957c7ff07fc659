package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/store"
	"github.com/containerd-snap/snap/test/harness"
)

// hostPIDs makes a container share the host's process ids.
func hostPIDs(ctx context.Context, c oci.Client, k *containers.Container, s *specs.Spec) error {
	return oci.WithHostNamespace(specs.PIDNamespace)(ctx, c, k, s)
}

// hideCRIU takes CRIU off the node's PATH until the test ends.
func hideCRIU(t *testing.T, c *container) {
	t.Helper()
	replaceCRIU(t, c.Node, "")
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
	tinyMount(t, filepath.Join(c.Node.StoreRoot, "drafts"), "size=64k")
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

// onFile returns a damage to one file of the images.
func onFile(name string, do func(path string) error) func(*testing.T, *harness.Node, checkpoint.Entry) {
	return func(t *testing.T, _ *harness.Node, e checkpoint.Entry) {
		t.Helper()
		if err := do(filepath.Join(e.Dir, "images", name)); err != nil {
			t.Fatal(err)
		}
	}
}

// flipBit changes one bit in the middle of a file.
func flipBit(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	data[len(data)/2] ^= 0x10
	return os.WriteFile(path, data, 0o600)
}

// forge registers a copy of a checkpoint with other metadata, in its place.
func forge(t *testing.T, n *harness.Node, e checkpoint.Entry, change func(*checkpoint.Checkpoint)) {
	t.Helper()
	s := openStore(t, n)
	d, err := s.NewDraft()
	if err != nil {
		t.Fatal(err)
	}
	defer d.Discard()
	for dst, part := range map[string]string{d.ImagesDir(): "images", d.DiffDir(): "diff"} {
		out, err := exec.CommandContext(t.Context(), "cp", "-a", filepath.Join(e.Dir, part)+"/.", dst).CombinedOutput()
		if err != nil {
			t.Fatalf("copy %s: %v: %s", part, err, out)
		}
	}
	meta := e.Checkpoint
	change(&meta)
	if err := s.Remove(e.Digest); err != nil {
		t.Fatal(err)
	}
	forged, err := d.Commit(testContext(t), meta, store.CommitOptions{Name: e.Name})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Remove(forged.Digest); err != nil && !errors.Is(err, checkpoint.ErrNotFound) {
			t.Error(err)
		}
	})
}

// boundDir is the directory that bindDirectory gives to a container.
func boundDir(id string) string { return filepath.Join(os.TempDir(), "snap-bound-"+id) }

// bindDirectory binds a directory of the container's own to /bound.
func bindDirectory(t *testing.T) []oci.SpecOpts {
	t.Helper()
	return []oci.SpecOpts{func(_ context.Context, _ oci.Client, c *containers.Container, s *specs.Spec) error {
		dir := boundDir(c.ID)
		t.Cleanup(func() {
			if err := os.RemoveAll(dir); err != nil {
				t.Error(err)
			}
		})
		s.Mounts = append(s.Mounts, specs.Mount{Type: "bind", Source: dir, Destination: "/bound", Options: []string{"rbind", "rw"}})
		return os.MkdirAll(dir, 0o700)
	}}
}

// tinyLayer puts the container's writable layer on a file system with little space.
func tinyLayer(t *testing.T, c *container) {
	t.Helper()
	ctx := testContext(t)
	mounts, err := c.Node.Client().SnapshotService("overlayfs").Mounts(ctx, c.ID())
	if err != nil {
		t.Fatal(err)
	}
	upper := ""
	for _, m := range mounts {
		for _, o := range m.Options {
			if dir, ok := strings.CutPrefix(o, "upperdir="); ok {
				upper = dir
			}
		}
	}
	if upper == "" {
		t.Fatalf("no upperdir in %v", mounts)
	}
	dir := filepath.Dir(upper)
	tinyMount(t, dir, "size=256k")
	for _, name := range []string{"fs", "work"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// parent is the parent's pid of a process: the shim's for an init.
func parent(t *testing.T, pid int) int {
	t.Helper()
	p, err := harness.ReadProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	return p.PPID
}

// criuOf returns the pid of the CRIU that works on the container, 0 if there is none.
// A restore's is in the container's cgroup, and so to be told from those of
// others in the same shim; a dump's is not.
func criuOf(c *container, restores bool) int {
	init, err := harness.ReadProcess(c.Pid())
	if err != nil {
		return 0
	}
	all, err := harness.Processes()
	if err != nil {
		return 0
	}
	for _, p := range all {
		// CRIU changes its command line.
		isCRIU := func(arg string) bool { return arg == "swrk" || strings.HasPrefix(arg, "criu:") }
		if p.PPID != init.PPID || p.State == "Z" || !slices.ContainsFunc(p.Args, isCRIU) {
			continue
		}
		// init, its sibling, looks like it until the restore is complete.
		if p.PID != init.PID && (!restores || slices.Equal(p.Cgroups, init.Cgroups)) {
			return p.PID
		}
	}
	return 0
}

// killHolder kills the CRIU that holds the task until Start.
func killHolder(t *testing.T, c *container) {
	t.Helper()
	pid := criuOf(c, true)
	if pid == 0 {
		t.Fatalf("%s: the shim runs no CRIU", c.ID())
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// wrapCRIU puts a few lines of shell before the node's CRIU, until the test ends.
func wrapCRIU(t *testing.T, n *harness.Node, lines string) {
	t.Helper()
	program, err := os.Readlink(filepath.Join(n.Bin, "criu"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "criu")
	script := fmt.Sprintf("#!/bin/sh\n%s\nexec %s \"$@\"\n", lines, program)
	if err := os.WriteFile(file, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	replaceCRIU(t, n, file)
}

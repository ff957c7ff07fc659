// Package rootfs mounts a container's root file system below its bundle, and
// moves the writable layer's difference between it and a checkpoint.
//
// Only the overlay file system keeps the difference as a directory of its own;
// other snapshotters' containers boot and cannot be captured.
package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/mount"

	"github.com/containerd-snap/snap/oci/overlay"
)

// DiffFormat names the encoding of a difference: the kernel's own, with
// whiteouts as devices 0/0 and trusted.overlay.opaque.
const DiffFormat = "overlay"

// Rootfs is the root file system of one container.
type Rootfs struct {
	// Path is where it is mounted.
	Path   string
	mounts []mount.Mount
}

// New describes the root file system that mounts make up below bundle. Without
// mounts the bundle's own directory is it.
func New(bundle string, mounts []mount.Mount) *Rootfs {
	return &Rootfs{Path: filepath.Join(bundle, "rootfs"), mounts: mounts}
}

// Mount mounts it.
func (r *Rootfs) Mount() error {
	if len(r.mounts) == 0 {
		return nil
	}
	if err := os.Mkdir(r.Path, 0o711); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make the rootfs mount point: %w", err)
	}
	if err := mount.All(r.mounts, r.Path); err != nil {
		return fmt.Errorf("mount rootfs: %w", errors.Join(err, r.Unmount()))
	}
	return nil
}

// Unmount unmounts it and what was mounted below it. It succeeds if nothing is mounted.
func (r *Rootfs) Unmount() error {
	if len(r.mounts) == 0 {
		return nil
	}
	return Unmount(r.Path)
}

// Unmount unmounts everything at and below path.
func Unmount(path string) error {
	if err := mount.UnmountRecursive(path, 0); err != nil {
		return fmt.Errorf("unmount rootfs %s: %w", path, err)
	}
	return nil
}

// upperdir is the writable layer's directory, empty if there is none.
func (r *Rootfs) upperdir() string {
	if len(r.mounts) == 0 {
		return ""
	}
	m := r.mounts[len(r.mounts)-1]
	return overlay.UpperDir(m.Type, m.Options)
}

// Capturable returns why the writable layer's difference cannot be captured;
// nil if it can.
func (r *Rootfs) Capturable() error {
	if r.upperdir() == "" {
		kind := "a plain directory"
		if len(r.mounts) > 0 {
			kind = fmt.Sprintf("of type %q", r.mounts[len(r.mounts)-1].Type)
		}
		return fmt.Errorf("the container's root file system is %s, and only an overlay's writable layer can be captured: use the overlayfs snapshotter", kind)
	}
	return nil
}

// Fresh says that the writable layer holds nothing yet: a checkpoint brings the
// layer it was captured with, which must not meet another task's files.
func (r *Rootfs) Fresh() (bool, error) { return overlay.Fresh(r.upperdir()) }

// Capture copies the writable layer's difference to dir, which exists. The
// task must not run meanwhile.
func (r *Rootfs) Capture(_ context.Context, dir string) error {
	if err := r.Capturable(); err != nil {
		return err
	}
	if err := copyTree(dir, r.upperdir()); err != nil {
		return fmt.Errorf("copy the writable layer: %w", err)
	}
	return nil
}

// Apply fills the writable layer, which must be fresh and not mounted, with a
// difference that Capture made.
func (r *Rootfs) Apply(_ context.Context, dir string) error {
	fresh, err := r.Fresh()
	if err != nil {
		return err
	}
	if !fresh {
		return errors.New("apply the checkpoint's difference: the writable layer is not fresh")
	}
	if err := copyTree(r.upperdir(), dir); err != nil {
		return fmt.Errorf("apply the checkpoint's difference: %w", errors.Join(err, r.Reset()))
	}
	return nil
}

// Reset empties the writable layer again. It must not be mounted.
func (r *Rootfs) Reset() error {
	dir := r.upperdir()
	if dir == "" {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("empty the writable layer: %w", err)
	}
	var errs []error
	for _, e := range entries {
		errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return errors.Join(errs...)
}

package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// A layer that is set back lies twice on the disk for a while: as it is to be and as
// it was. Both have their place in the snapshot's directory, beside the writable
// layer's own, so that one changes for the other in one step, and both go when the
// snapshot goes.
const (
	// asideName is the directory that is not in use: in preparation before the
	// exchange, what was there before after it.
	asideName = "snap-aside"
	// formerXattr marks the layer that was there before. It tells, after a crash,
	// on which side of the exchange it came.
	formerXattr = "trusted.snap.former"
)

// aside is where the layer lies that is not in use.
func (r *Rootfs) aside() string { return filepath.Join(filepath.Dir(r.upperdir()), asideName) }

// SetBack makes the writable layer, which must not be mounted, what it was when
// Capture copied it to dir. What it was before is kept until Keep or Revert. After an
// error the layer is as before.
//
// It reaches the disk before the exchange: nothing that was safe there is given up for
// something that is not yet.
func (r *Rootfs) SetBack(_ context.Context, dir string) (retErr error) {
	upper := r.upperdir()
	if upper == "" {
		return fmt.Errorf("set the writable layer back: %w", r.Capturable())
	}
	if err := r.Recover(); err != nil {
		return err
	}
	defer func() {
		if retErr != nil {
			retErr = fmt.Errorf("set the writable layer back: %w", errors.Join(retErr, r.Revert()))
		}
	}()
	if err := os.Mkdir(r.aside(), 0o700); err != nil {
		return err
	}
	if err := copyTree(r.aside(), dir); err != nil {
		return err
	}
	if err := syncTree(r.aside()); err != nil {
		return err
	}
	if err := unix.Setxattr(upper, formerXattr, []byte("1"), 0); err != nil {
		return &os.PathError{Op: "setxattr", Path: upper, Err: err}
	}
	return r.exchange()
}

// Keep ends a SetBack for good: what the layer was before is deleted.
func (r *Rootfs) Keep() error {
	// This first, and in one step: half of a layer must never be taken for it.
	err := unix.Removexattr(r.aside(), formerXattr)
	if err == nil {
		err = os.RemoveAll(r.aside())
	}
	if err != nil {
		return fmt.Errorf("delete the writable layer as it was: %w", err)
	}
	return nil
}

// Revert takes a SetBack back. It must not be mounted.
func (r *Rootfs) Revert() error { return r.Recover() }

// Recover makes the writable layer what it was before a SetBack that neither Keep nor
// Revert ended, because the shim was killed. The container's layer must not be mounted.
// Between the end of the restore and Keep it also drops what the program wrote in those
// milliseconds: as much as a crash just before would have.
func (r *Rootfs) Recover() error {
	upper := r.upperdir()
	if upper == "" {
		return nil
	}
	_, err := os.Lstat(r.aside())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		var exchanged bool
		if exchanged, err = hasXattr(r.aside(), formerXattr); exchanged {
			err = r.exchange()
		}
	}
	if err == nil {
		err = os.RemoveAll(r.aside())
	}
	if err == nil {
		err = unix.Removexattr(upper, formerXattr)
		if errors.Is(err, unix.ENODATA) {
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("recover the writable layer %s: %w", upper, err)
	}
	return nil
}

// exchange swaps the layer and what lies aside, in one step.
func (r *Rootfs) exchange() error {
	err := unix.Renameat2(unix.AT_FDCWD, r.upperdir(), unix.AT_FDCWD, r.aside(), unix.RENAME_EXCHANGE)
	if err != nil {
		return fmt.Errorf("exchange %s and %s: %w", r.upperdir(), r.aside(), err)
	}
	return nil
}

func hasXattr(path, name string) (bool, error) {
	_, err := unix.Getxattr(path, name, nil)
	if errors.Is(err, unix.ENODATA) {
		return false, nil
	}
	return err == nil, err
}

// syncTree writes the files and directories below dir to the disk. Not the whole file
// system: on a busy node others' writes would be waited for.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() && !d.Type().IsRegular() {
			return err
		}
		f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	})
}

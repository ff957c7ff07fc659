package rootfs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// originXattr ties a copied-up file to its lower inode on this very file
// system; it means nothing in a copy.
const originXattr = "trusted.overlay.origin"

// copyTree copies a layer below src to dst, which exists: contents with their
// holes, owners, modes, times, extended attributes, hard links and devices. It
// shares blocks where the file system can (FICLONE).
//
// It syncs nothing, unlike the libraries at hand: a task stands still while its
// layer is captured, and waits for it when it is applied. The store syncs what
// it registers.
func copyTree(dst, src string) error {
	c := copier{links: make(map[inode]string)}
	return c.dir(dst, src)
}

// inode identifies a file that may have several names.
type inode struct{ dev, ino uint64 }

type copier struct {
	// links are the copies of files with several names.
	links map[inode]string
}

// dir copies the content of a directory, and then what is known of itself: its
// times would not survive the filling.
func (c *copier) dir(dst, src string) error {
	entries, err := os.ReadDir(src)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := c.entry(filepath.Join(dst, e.Name()), filepath.Join(src, e.Name())); err != nil {
			return err
		}
	}
	var st unix.Stat_t
	if err := unix.Lstat(src, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: src, Err: err}
	}
	return attributes(dst, src, &st)
}

// entry copies one file of any kind.
func (c *copier) entry(dst, src string) error {
	var st unix.Stat_t
	if err := unix.Lstat(src, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: src, Err: err}
	}
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFDIR && st.Nlink > 1 {
		key := inode{st.Dev, st.Ino}
		if first, ok := c.links[key]; ok {
			return os.Link(first, dst)
		}
		c.links[key] = dst
	}
	var err error
	switch kind {
	case unix.S_IFDIR:
		if err := os.Mkdir(dst, 0o700); err != nil {
			return err
		}
		return c.dir(dst, src)
	case unix.S_IFREG:
		err = content(dst, src, st.Size)
	case unix.S_IFLNK:
		var target string
		if target, err = os.Readlink(src); err == nil {
			err = os.Symlink(target, dst)
		}
	default:
		// Whiteouts are character devices 0/0; a socket is only a name.
		if err = unix.Mknod(dst, st.Mode, int(st.Rdev)); err != nil {
			err = &os.PathError{Op: "mknod", Path: dst, Err: err}
		}
	}
	if err != nil {
		return err
	}
	return attributes(dst, src, &st)
}

// content copies a regular file's.
func content(dst, src string, size int64) (err error) {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if unix.IoctlFileClone(int(out.Fd()), int(in.Fd())) == nil {
		return nil
	}
	// The end may be a hole.
	if err := out.Truncate(size); err != nil {
		return err
	}
	for at := int64(0); at < size; {
		data, err := unix.Seek(int(in.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil
		}
		if err != nil {
			return &os.PathError{Op: "seek", Path: src, Err: err}
		}
		hole, err := unix.Seek(int(in.Fd()), data, unix.SEEK_HOLE)
		if err != nil {
			return &os.PathError{Op: "seek", Path: src, Err: err}
		}
		if err := extent(out, in, data, hole-data); err != nil {
			return err
		}
		at = hole
	}
	return nil
}

// extent copies n bytes at offset; inside the kernel, where it can.
func extent(out, in *os.File, offset, n int64) error {
	for _, f := range []*os.File{in, out} {
		if _, err := f.Seek(offset, io.SeekStart); err != nil {
			return err
		}
	}
	_, err := io.CopyN(out, in, n)
	return err
}

// attributes gives dst src's owner, extended attributes, mode and times, in the
// order in which none undoes another.
func attributes(dst, src string, st *unix.Stat_t) error {
	if err := os.Lchown(dst, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := copyXattrs(dst, src); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Chmod(dst, st.Mode&^unix.S_IFMT); err != nil {
			return &os.PathError{Op: "chmod", Path: dst, Err: err}
		}
	}
	times := []unix.Timespec{st.Atim, st.Mtim}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, dst, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "utimensat", Path: dst, Err: err}
	}
	return nil
}

// maxXattr is the kernel's bound for a list of names and for a value, in bytes
// (XATTR_LIST_MAX, XATTR_SIZE_MAX).
const maxXattr = 64 << 10

func copyXattrs(dst, src string) error {
	// Most files have none: ask for the size first.
	size, err := unix.Llistxattr(src, nil)
	if errors.Is(err, unix.ENOTSUP) || err == nil && size == 0 {
		return nil
	}
	names := make([]byte, maxXattr)
	if size, err = unix.Llistxattr(src, names); err != nil {
		return fmt.Errorf("list the extended attributes of %s: %w", src, err)
	}
	value := make([]byte, maxXattr)
	for name := range strings.SplitSeq(strings.TrimRight(string(names[:size]), "\x00"), "\x00") {
		if name == originXattr || name == "" {
			continue
		}
		n, err := unix.Lgetxattr(src, name, value)
		if err == nil {
			err = unix.Lsetxattr(dst, name, value[:n], 0)
		}
		if err != nil {
			return fmt.Errorf("copy the extended attribute %s of %s: %w", name, src, err)
		}
	}
	return nil
}

package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
)

// chunk is how much is read between two looks at the context.
const chunk = 1 << 20

// chunks are reused, because most files are far smaller than one.
var chunks = sync.Pool{New: func() any { return new([chunk]byte) }}

// hashFile returns the SHA-256 of f's content in hexadecimal, and its length. It
// also has f written to the disk, without waiting for it. onRead may be nil.
func hashFile(ctx context.Context, f *os.File, onRead func(int64)) (string, int64, error) {
	startWriting(f)
	h := sha256.New()
	size, err := copyChunks(ctx, h, f, onRead)
	if err != nil {
		return "", 0, err
	}
	return hex.EncodeToString(h.Sum(nil)), size, nil
}

// startWriting has the disk work while we do. Only a hint: file systems without it write at
// the fsync.
func startWriting(f *os.File) { _ = unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE) }

func copyChunks(ctx context.Context, h hash.Hash, f *os.File, onRead func(int64)) (int64, error) {
	var size int64
	buf := chunks.Get().(*[chunk]byte)
	defer chunks.Put(buf)
	for {
		if err := context.Cause(ctx); err != nil {
			return 0, err
		}
		n, err := f.Read(buf[:])
		h.Write(buf[:n])
		size += int64(n)
		if onRead != nil && n > 0 {
			onRead(int64(n))
		}
		if errors.Is(err, io.EOF) {
			return size, nil
		}
		if err != nil {
			return 0, err
		}
	}
}

// digestDiff describes the tree dir/name. Its digest covers, of every node, its path,
// type, mode, owner and extended attributes, the target of a link, the number of a
// device, and the content of a file. It covers neither times nor which names are
// hard links to one file, nor what of a file is a hole: a copy in an archive need not keep them.
func digestDiff(ctx context.Context, dir *os.File, name string, onRead func(int64)) (checkpoint.Diff, error) {
	diff := checkpoint.Diff{Format: diffOverlay}
	h := sha256.New()
	err := walkDir(ctx, dir, name, func(n node) error {
		if n.path != "." {
			diff.Files++
		}
		// Whatever has no fixed length is preceded by its length: no two trees
		// have the same encoding.
		fmt.Fprintf(h, "node %d:%s mode %o owner %d:%d\n", len(n.path), n.path, n.st.Mode, n.st.Uid, n.st.Gid)
		if err := digestXattrs(h, n); err != nil {
			return err
		}
		switch n.kind() {
		case unix.S_IFLNK:
			target, err := readlink(n)
			if err != nil {
				return err
			}
			fmt.Fprintf(h, "link %d:%s\n", len(target), target)
		case unix.S_IFCHR, unix.S_IFBLK:
			fmt.Fprintf(h, "device %d:%d\n", unix.Major(n.st.Rdev), unix.Minor(n.st.Rdev))
		case unix.S_IFREG:
			f, err := n.open()
			if err != nil {
				return err
			}
			defer f.Close()
			// A program may keep a file that is all hole, as a database does.
			sum, stored, err := hashSparse(ctx, f, onRead)
			if err != nil {
				return fmt.Errorf("read %s: %w", n.path, err)
			}
			diff.Bytes += stored
			fmt.Fprintf(h, "content %s\n", sum)
		}
		return nil
	})
	if err != nil {
		return checkpoint.Diff{}, fmt.Errorf("digest %s: %w", name, err)
	}
	diff.SHA256 = hex.EncodeToString(h.Sum(nil))
	return diff, nil
}

func readlink(n node) (string, error) {
	buf := make([]byte, unix.PathMax)
	size, err := unix.Readlinkat(int(n.dir.Fd()), n.name, buf)
	if err != nil {
		return "", &os.PathError{Op: "readlink", Path: n.path, Err: err}
	}
	return string(buf[:size]), nil
}

// digestXattrs covers the attributes that a program or overlayfs set. Others, as
// SELinux labels, belong to the host, which gives and changes them as it likes.
func digestXattrs(h hash.Hash, n node) error {
	names, err := listXattrs(n)
	if err != nil {
		return &os.PathError{Op: "list extended attributes", Path: n.path, Err: err}
	}
	for _, name := range names {
		value, err := grow(func(buf []byte) (int, error) { return unix.Lgetxattr(n.procPath(), name, buf) })
		if err != nil {
			return &os.PathError{Op: "read extended attribute " + name, Path: n.path, Err: err}
		}
		fmt.Fprintf(h, "attribute %d:%s %d:%s\n", len(name), name, len(value), value)
	}
	return nil
}

func listXattrs(n node) ([]string, error) {
	raw, err := grow(func(buf []byte) (int, error) { return unix.Llistxattr(n.procPath(), buf) })
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names := slices.DeleteFunc(strings.Split(string(raw), "\x00"), func(name string) bool {
		return name != "security.capability" && !strings.HasPrefix(name, "trusted.") &&
			!strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "system.posix_acl_")
	})
	slices.Sort(names)
	return names, nil
}

// grow calls fill with ever larger buffers, up to the kernel's limit for an
// extended attribute and for a list of them.
func grow(fill func([]byte) (int, error)) ([]byte, error) {
	for size := 256; ; size *= 4 {
		buf := make([]byte, size)
		n, err := fill(buf)
		if err == nil {
			return buf[:n], nil
		}
		if !errors.Is(err, unix.ERANGE) || size >= 64<<10 {
			return nil, err
		}
	}
}

package store

import (
	"context"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
)

// maxDepth bounds the nesting of directories: each level holds a descriptor.
const maxDepth = 256

// node is one thing in a tree that is being walked.
type node struct {
	// dir is the open directory that holds it; for the root of the walk, the root itself.
	dir *os.File
	// name is its name in dir; "." for the root.
	name string
	// path is relative to the root of the walk; "." for the root.
	path string
	st   unix.Stat_t
}

func (n node) kind() uint32    { return n.st.Mode & unix.S_IFMT }
func (n node) isDir() bool     { return n.kind() == unix.S_IFDIR }
func (n node) isRegular() bool { return n.kind() == unix.S_IFREG }

// open opens a regular file or a directory.
func (n node) open() (*os.File, error) { return openAt(n.dir, n.name, 0) }

// procPath is a path to the node for system calls that take no directory
// descriptor. It does not depend on what lies above dir.
func (n node) procPath() string {
	return "/proc/self/fd/" + strconv.Itoa(int(n.dir.Fd())) + "/" + n.name
}

// describe names the node's type for people.
func (n node) describe() string {
	switch n.kind() {
	case unix.S_IFREG:
		return "a regular file"
	case unix.S_IFDIR:
		return "a directory"
	case unix.S_IFLNK:
		return "a symbolic link"
	case unix.S_IFIFO:
		return "a fifo"
	case unix.S_IFSOCK:
		return "a socket"
	default:
		return "a device"
	}
}

// walk visits root and all below it, a directory before what it holds, names in
// byte order. It follows no link and never opens anything but directories.
func walk(ctx context.Context, root *os.File, visit func(node) error) error {
	st, err := statAt(root, ".")
	if err != nil {
		return err
	}
	if err := visit(node{dir: root, name: ".", path: ".", st: st}); err != nil {
		return err
	}
	return walkBelow(ctx, root, "", 1, visit)
}

func walkBelow(ctx context.Context, dir *os.File, prefix string, depth int, visit func(node) error) error {
	if depth > maxDepth {
		return fmt.Errorf("walk %.80s...: %w tree: more than %d directories within each other", prefix, checkpoint.ErrInvalid, maxDepth)
	}
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		st, err := statAt(dir, name)
		if err != nil {
			return err
		}
		n := node{dir: dir, name: name, path: path.Join(prefix, name), st: st}
		if err := visit(n); err != nil {
			return err
		}
		if !n.isDir() {
			continue
		}
		sub, err := openDirAt(dir, name)
		if err != nil {
			return err
		}
		err = walkBelow(ctx, sub, n.path, depth+1, visit)
		sub.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// walkDir is walk for the directory name in dir.
func walkDir(ctx context.Context, dir *os.File, name string, visit func(node) error) error {
	root, err := openDirAt(dir, name)
	if err != nil {
		return err
	}
	defer root.Close()
	return walk(ctx, root, visit)
}

// syncTree makes everything below dir/name durable. Regular files are expected to be
// on their way to the disk already (see hashFile): then the first fsync commits the
// file system's journal for all, and the others find nothing left to do.
func syncTree(ctx context.Context, dir *os.File, name string) error {
	return walkDir(ctx, dir, name, func(n node) error {
		if !n.isDir() && !n.isRegular() {
			return nil // made durable with its directory
		}
		f, err := n.open()
		if err != nil {
			return err
		}
		defer f.Close()
		return f.Sync()
	})
}

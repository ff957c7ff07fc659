package rootfs

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// AddName gives a file another name in a difference that Capture made in dir. The file is
// that at path in /proc, which a process of the container has in use, and which has a name left. What
// lies on another file system of the container is left alone. The container, whose first
// process is pid, must stand still since Capture.
func AddName(dir string, pid int, path, name string) error {
	add := func() error {
		var file, root unix.Stat_t
		merged := fmt.Sprintf("/proc/%d/root", pid)
		if err := unix.Stat(path, &file); err != nil {
			return &os.PathError{Op: "stat", Path: path, Err: err}
		}
		if err := unix.Stat(merged, &root); err != nil {
			return &os.PathError{Op: "stat", Path: merged, Err: err}
		}
		if file.Dev != root.Dev {
			return nil
		}
		r, err := os.OpenRoot(dir)
		if err != nil {
			return err
		}
		defer r.Close()
		other, err := nameOf(r.FS(), merged, &file)
		if err != nil {
			return err
		}
		return r.Link(other, strings.TrimPrefix(name, "/"))
	}
	if err := add(); err != nil {
		return fmt.Errorf("keep the open file %s, which was deleted and has other names: %w", name, err)
	}
	return nil
}

// nameOf finds a name of a file of the container among those of a difference: it counts what
// overlay says of it, not the layer.
func nameOf(diff fs.FS, merged string, file *unix.Stat_t) (string, error) {
	found := ""
	err := fs.WalkDir(diff, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		var st unix.Stat_t
		if unix.Lstat(filepath.Join(merged, name), &st) == nil && st.Ino == file.Ino && st.Dev == file.Dev {
			found = name
			return fs.SkipAll
		}
		return nil
	})
	if err == nil && found == "" {
		err = fmt.Errorf("no name of it is left in the writable layer: %w", fs.ErrNotExist)
	}
	return found, err
}

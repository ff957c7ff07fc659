package store

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
)

// errNotRegular is returned for anything but a regular file where one is expected.
var errNotRegular = errors.New("not a regular file")

// openDir opens a directory, not following a link in place of it.
func openDir(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
}

// openAt opens name, a single path element, in dir, following no link.
func openAt(dir *os.File, name string, flags int) (*os.File, error) {
	for {
		fd, err := unix.Openat(int(dir.Fd()), name, flags|unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: filepath.Join(dir.Name(), name), Err: err}
		}
		return os.NewFile(uintptr(fd), filepath.Join(dir.Name(), name)), nil
	}
}

func openDirAt(dir *os.File, name string) (*os.File, error) {
	return openAt(dir, name, unix.O_DIRECTORY)
}

func statAt(dir *os.File, name string) (unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return st, &os.PathError{Op: "stat", Path: filepath.Join(dir.Name(), name), Err: err}
	}
	return st, nil
}

// openRegularAt opens the regular file name in dir. It asks for the type before it
// opens, because opening a fifo waits and opening a device may do anything.
func openRegularAt(dir *os.File, name string) (*os.File, unix.Stat_t, error) {
	st, err := statAt(dir, name)
	if err != nil {
		return nil, st, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, st, &os.PathError{Op: "open", Path: filepath.Join(dir.Name(), name), Err: errNotRegular}
	}
	f, err := openAt(dir, name, 0)
	return f, st, err
}

// openBeneath opens the regular file at the slash-separated path below dir,
// following no link in any of its elements.
func openBeneath(dir *os.File, path string) (*os.File, unix.Stat_t, error) {
	first, rest, nested := strings.Cut(path, "/")
	if !nested {
		return openRegularAt(dir, path)
	}
	sub, err := openDirAt(dir, first)
	if err != nil {
		return nil, unix.Stat_t{}, err
	}
	defer sub.Close()
	return openBeneath(sub, rest)
}

// readBounded reads the regular file name in dir, at most limit bytes.
func readBounded(dir *os.File, name string, limit int64) ([]byte, error) {
	f, st, err := openRegularAt(dir, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st.Size > limit {
		return nil, fmt.Errorf("read %s: %w: %d bytes, the limit is %d", f.Name(), checkpoint.ErrInvalid, st.Size, limit)
	}
	content := make([]byte, 0, st.Size+1)
	buf := content[:cap(content)]
	n, err := io.ReadFull(io.LimitReader(f, limit), buf)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	return buf[:n], nil
}

// readFile reads the regular file name in the directory at dirPath, at most limit bytes.
func readFile(dirPath, name string, limit int64) ([]byte, error) {
	dir, err := openDir(dirPath)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return readBounded(dir, name, limit)
}

func syncDir(path string) error {
	dir, err := openDir(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// listDir returns the names in a directory; none if there is no such directory.
func listDir(path string) ([]string, error) {
	dir, err := openDir(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // deleted after it was opened
	}
	return names, err
}

// staged is a complete file in tmp/, ready to be renamed into its place. Its owner
// holds its lock, so that Sweep lets it be.
type staged struct {
	f *os.File
}

// stage writes content to a new file in tmp/. Durable content survives a power
// cut once it is placed; other content may then be missing or empty.
func (s *Store) stage(content []byte, durable bool) (*staged, error) {
	f, err := s.createTemp()
	if err != nil {
		return nil, err
	}
	st := &staged{f: f}
	if _, err := f.Write(content); err != nil {
		st.drop()
		return nil, err
	}
	if durable {
		if err := f.Sync(); err != nil {
			st.drop()
			return nil, err
		}
	}
	return st, nil
}

// createTemp creates and locks a file in tmp/. Between the two, Sweep may take it
// for abandoned and delete it: then it is made anew.
func (s *Store) createTemp() (*os.File, error) {
	for {
		f, err := os.OpenFile(s.path(tmpDir, rand.Text()), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return nil, err
		}
		ok, err := tryLock(f, unix.LOCK_EX)
		if err != nil {
			os.Remove(f.Name())
			f.Close()
			return nil, err
		}
		if ok && isAt(f, f.Name()) {
			return f, nil
		}
		f.Close()
	}
}

// place renames the file to path, replacing what is there.
func (st *staged) place(path string) error {
	err := os.Rename(st.f.Name(), path)
	if err != nil {
		st.drop()
		return err
	}
	unlock(st.f)
	return nil
}

// drop deletes the file instead.
func (st *staged) drop() {
	os.Remove(st.f.Name())
	unlock(st.f)
}

// replaceFile writes content to path in one step: readers see the old or the new.
func (s *Store) replaceFile(path string, content []byte, durable bool) error {
	st, err := s.stage(content, durable)
	if err != nil {
		return err
	}
	if err := st.place(path); err != nil {
		return err
	}
	if durable {
		return syncDir(filepath.Dir(path))
	}
	return nil
}

// remove deletes the file at path; it need not exist.
func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

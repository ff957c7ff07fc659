package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"
)

// epoch is the time of every file and image that this program makes.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// entry is a directory, a symbolic link (link is its target) or a regular file.
type entry struct {
	mode fs.FileMode
	link string
	data []byte
}

// tree is a layer's files by their slash-separated path, without a leading
// slash. It is held in memory: it is meant for programs and their data, not for
// root file systems.
type tree map[string]entry

func (t tree) dir(name string, perm fs.FileMode)            { t[name] = entry{mode: fs.ModeDir | perm} }
func (t tree) file(name string, p fs.FileMode, data []byte) { t[name] = entry{mode: p, data: data} }
func (t tree) symlink(name, target string) {
	t[name] = entry{mode: fs.ModeSymlink | 0o777, link: target}
}

// readTree reads a directory. Owners and times are not kept.
func readTree(dir string) (tree, error) {
	t := tree{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		e := entry{mode: info.Mode()}
		switch {
		case info.IsDir():
		case info.Mode().IsRegular():
			e.data, err = os.ReadFile(p)
		case info.Mode()&fs.ModeSymlink != 0:
			e.link, err = os.Readlink(p)
		default:
			err = fmt.Errorf("add %s: it is no file, directory or symbolic link", p)
		}
		t[filepath.ToSlash(rel)] = e
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read layer from %s: %w", dir, err)
	}
	return t, nil
}

// tar encodes the tree, parents before their children and otherwise by name.
func (t tree) tar() ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, name := range slices.Sorted(maps.Keys(t.withParents())) {
		e, ok := t[name]
		if !ok {
			e.mode = fs.ModeDir | 0o755
		}
		h := &tar.Header{Name: name, Mode: int64(e.mode.Perm()), ModTime: epoch, Linkname: e.link}
		for bit, c := range map[fs.FileMode]int64{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
			if e.mode&bit != 0 {
				h.Mode |= c
			}
		}
		switch e.mode.Type() {
		case fs.ModeDir:
			h.Typeflag, h.Name = tar.TypeDir, name+"/"
		case fs.ModeSymlink:
			h.Typeflag = tar.TypeSymlink
		default:
			h.Typeflag, h.Size = tar.TypeReg, int64(len(e.data))
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("encode %s: %w", name, err)
		}
		if _, err := w.Write(e.data); err != nil {
			return nil, fmt.Errorf("encode %s: %w", name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("encode layer: %w", err)
	}
	return buf.Bytes(), nil
}

// withParents names the tree's entries and the directories that lead to them.
func (t tree) withParents() map[string]bool {
	names := map[string]bool{}
	for name := range t {
		for ; name != "."; name = path.Dir(name) {
			names[name] = true
		}
	}
	return names
}

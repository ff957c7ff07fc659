package criu

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// archiveOf is an archive of a directory, made as CRIU makes that of a tmpfs.
func archiveOf(t *testing.T, dir string) []byte {
	t.Helper()
	data, err := exec.Command("tar", "--create", "--gzip", "--no-unquote", "--no-wildcards", "--one-file-system", "--check-links",
		"--preserve-permissions", "--sparse", "--numeric-owner", "--directory", dir, ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestDropEmptyTmpfs: an archive goes if a mount without it is the same.
func TestDropEmptyTmpfs(t *testing.T) {
	images := map[string][]byte{
		"tmpfs-dev-99.tar.gz.img": archiveOf(t, t.TempDir()), // of no mount
		"tmpfs-dev-98.tar.gz.img": archiveOf(t, t.TempDir()), // of no tmpfs
	}
	var mounts [][]byte
	want := []string{"mountpoints-9.img", "tmpfs-dev-98.tar.gz.img", "tmpfs-dev-99.tar.gz.img"}
	var kinds []uint64
	for n, c := range []struct {
		mode    os.FileMode
		uid     int
		file    string
		options string
		goes    bool
	}{
		{mode: os.ModeSticky | 0o777, options: "size=65536k,inode64", goes: true},
		{mode: 0o755, options: "rw,mode=755", goes: true},
		{mode: 0o755, uid: 7, options: "mode=755,uid=7,gid=7", goes: true},
		{mode: 0o755, options: "mode=700"},
		{mode: 0o755, options: ""},
		{mode: 0o755, uid: 7, options: "mode=755"},
		{mode: 0o755, options: "mode=755,uid=x"},
		{mode: 0o755, file: "f", options: "mode=755"},
		{mode: 0o755, file: "large", options: "mode=755"},
	} {
		root := t.TempDir()
		if c.file != "" {
			var content []byte
			if c.file == "large" {
				content = make([]byte, 1<<20)
				_, _ = rand.Read(content)
			}
			if err := os.WriteFile(filepath.Join(root, c.file), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chown(root, c.uid, c.uid); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(root, c.mode); err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("tmpfs-dev-%d.tar.gz.img", n)
		images[name] = archiveOf(t, root)
		mounts = append(mounts, message(mountKind, kindTmpfs, mountDevice, n, mountOptions, []byte(c.options)))
		if c.goes {
			kinds = append(kinds, kindAuto)
		} else {
			kinds = append(kinds, kindTmpfs)
			want = append(want, name)
		}
	}
	const kindProc = 1
	mounts, kinds = append(mounts, message(mountKind, kindProc, mountDevice, 98)), append(kinds, kindProc)
	mounts, kinds = append(mounts, message(mountKind, kindTmpfs, mountDevice, 0)), append(kinds, kindAuto) // once more
	images["mountpoints-9.img"] = imageOf("mountpoints", mounts...)
	dir := plantImages(t, images)
	if err := DropEmptyTmpfs(dir); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(want)
	var got []string
	for _, e := range left {
		got = append(got, e.Name())
	}
	if !slices.Equal(got, want) {
		t.Errorf("left are %v, want %v", got, want)
	}
	entries, err := messages(dir, "mountpoints-9.img")
	if err != nil || len(entries) != len(kinds) {
		t.Fatalf("%d mounts, %v", len(entries), err)
	}
	for n, m := range entries {
		if kind := m.Number(mountKind); kind != kinds[n] || (kind == kindAuto) != (string(m.Text(mountName)) == "tmpfs") {
			t.Errorf("mount %d is of kind %d, want %d", n, kind, kinds[n])
		}
	}
}

// FuzzEmptyTmpfs: what is called empty has no file, whoever reads it.
func FuzzEmptyTmpfs(f *testing.F) {
	var head bytes.Buffer
	w := tar.NewWriter(&head)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o1777, Format: tar.FormatGNU}); err != nil {
		f.Fatal(err)
	}
	if err := w.Close(); err != nil {
		f.Fatal(err)
	}
	f.Add(head.Bytes(), "")
	f.Add(head.Bytes()[:tarBlock], "mode=1777")
	f.Fuzz(func(t *testing.T, archive []byte, options string) {
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		if _, err := z.Write(archive); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		if !holdsRoot(packed.Bytes(), options) {
			return
		}
		r := tar.NewReader(bytes.NewReader(archive))
		if h, err := r.Next(); err == nil && h.Name != "./" {
			t.Errorf("%q holds %q", archive, h.Name)
		}
		if h, err := r.Next(); err == nil {
			t.Errorf("%q holds %q as well", archive, h.Name)
		}
	})
}

package criu

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/containerd-snap/snap/checkpoint/criu/image"
)

// regular is the file_entry of a file on mount 3, the container's own, or 4, one from outside.
func regular(id, mount int, path string, mode int, size ...int) []byte {
	reg := message(1, id, 2, 0, 3, 0, 5, message(1, 0), 6, []byte(path), 7, int(protowire.EncodeZigZag(int64(mount))), 10, mode)
	if len(size) > 0 {
		reg = append(reg, message(8, size[0])...)
	}
	return message(1, 1, 2, id, 3, reg)
}

// filesOf are images of processes 7 and 8 with files.
func filesOf(t testing.TB) map[string][]byte {
	const file, dir, device = 0o100644, 0o40755, 0o20666
	images := tree2(t)
	area := func(start, file, status int) []byte { return message(1, start, 2, start+0x1000, 4, file, 7, status) }
	maps.Copy(images, map[string][]byte{
		"files.img": imageOf("files",
			regular(1, 3, "/bin/server", file, 1000),
			message(1, 2, 2, 2), // a pipe
			regular(3, 4, "/etc/hosts", file, 20),
			regular(4, 4, "/data/log", file),
			regular(5, 4, "/data", dir),
			regular(6, 3, "/dev/null", device),
			regular(7, 3, "/tmp/ghost", file, 5),
			regular(8, 3, "/srv/was", file, 6),
			regular(9, 3, "/srv/link_remap.9", 0),
			regular(10, -1, "file[2a:77]", file, 1<<30),
			regular(11, 4, "/data/mapped", file, 4096),
			regular(12, 3, "/srv/gone", file, 4096),
			regular(13, 3, "/srv/link_remap.13", 0),
		),
		"mountpoints-5.img": imageOf("mountpoints",
			message(2, 3, 7, []byte("/")),
			message(2, 4, 7, []byte("/data"), 18, []byte("/data")),
		),
		"remap-fpath.img": imageOf("remap", message(1, 7, 2, 1, 3, 1), message(1, 8, 2, 9, 3, 0), message(1, 12, 2, 13, 3, 0)),
		"mm-7.img":        imageOf("mm", message(12, 1, 14, area(0x400000, 1, 1<<6|1), 14, area(0x500000, 11, 1<<7|1), 14, area(0x600000, 12, 1<<6|1), 14, area(0x700000, 5, 1<<9|1))),
		"fdinfo-5.img":    imageOf("fdinfo", message(1, 8, 4, 19), message(1, 3, 4, 20)),
	})
	return images
}

func writeImages(t testing.TB, images map[string][]byte) string {
	dir := t.TempDir()
	for name, data := range images {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestOpenFiles(t *testing.T) {
	dir := writeImages(t, filesOf(t))
	got, err := OpenFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := []OpenFile{
		{Path: "/bin/server", Size: 1000, Mapped: true, Mode: 0o100644, id: 1, mount: 3},
		{Path: "/etc/hosts", External: "/data", Size: 20, Mode: 0o100644, id: 3, mount: 4},
		{Path: "/data/log", External: "/data", Size: -1, Mode: 0o100644, id: 4, mount: 4},
		{Path: "/data", External: "/data", Size: -1, Mode: 0o40755, id: 5, mount: 4},
		{Path: "/tmp/ghost", Size: 5, Removed: true, Mode: 0o100644, id: 7, mount: 3},
		{Path: "/srv/was", Size: 6, Removed: true, Mode: 0o100644, id: 8, mount: 3},
		{Path: "/data/mapped", External: "/data", Size: 4096, Mapped: true, Mode: 0o100644, id: 11, mount: 4},
		{Path: "/srv/gone", Size: 4096, Mapped: true, Removed: true, Mode: 0o100644, id: 12, mount: 3},
	}
	if !slices.Equal(got, want) {
		t.Errorf("files %+v, want %+v", got, want)
	}
	links, err := LinkRemaps(dir)
	if err != nil {
		t.Fatal(err)
	}
	wantLinks := []LinkRemap{
		{Path: "/srv/was", Name: "/srv/link_remap.9", PID: 7, Link: "fd/19"},
		{Path: "/srv/gone", Name: "/srv/link_remap.13", PID: 7, Link: "map_files/600000-601000"},
	}
	if !slices.Equal(links, wantLinks) {
		t.Errorf("links %+v, want %+v", links, wantLinks)
	}
}

// Without deleted files there is no remap-fpath.img.
func TestNoRemaps(t *testing.T) {
	images := filesOf(t)
	delete(images, "remap-fpath.img")
	dir := writeImages(t, images)
	if links, err := LinkRemaps(dir); err != nil || links != nil {
		t.Errorf("%+v, %v", links, err)
	}
	if files, err := OpenFiles(dir); err != nil || len(files) != 8 || files[4].Removed {
		t.Errorf("%+v, %v", files, err)
	}
}

func TestForgetSizes(t *testing.T) {
	dir := writeImages(t, filesOf(t))
	before, err := OpenFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	var asked []string
	forget := func(f OpenFile) bool {
		asked = append(asked, f.Path)
		return f.Path == "/etc/hosts"
	}
	if err := ForgetSizes(dir, forget); err != nil {
		t.Fatal(err)
	}
	if want := []string{"/bin/server", "/etc/hosts", "/data/mapped"}; !slices.Equal(asked, want) {
		t.Errorf("asked of %q, want %q", asked, want)
	}
	after, err := OpenFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	before[1].Size = -1
	if !reflect.DeepEqual(after, before) {
		t.Errorf("files %+v, want %+v", after, before)
	}
	// Nothing else has changed: the images as they are when written that way in the first place.
	images := filesOf(t)
	images["files.img"] = []byte{}
	recs, err := image.Records(filesOf(t)["files.img"][image.Header:])
	if err != nil {
		t.Fatal(err)
	}
	recs[2] = regular(3, 4, "/etc/hosts", 0o100644)
	want := imageOf("files", recs...)
	if got, err := os.ReadFile(filepath.Join(dir, "files.img")); err != nil || !slices.Equal(got, want) {
		t.Errorf("files.img is %x, %v, want %x", got, err, want)
	}
}

// Images may come from anywhere: damage is an error, and no crash.
func FuzzOpenFiles(f *testing.F) {
	images := filesOf(f)
	for name, data := range images {
		f.Add(name, data)
	}
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		if _, ok := images[name]; !ok {
			return
		}
		all := maps.Clone(images)
		all[name] = data
		dir := writeImages(t, all)
		files, err := OpenFiles(dir)
		links, lerr := LinkRemaps(dir)
		ferr := ForgetSizes(dir, func(OpenFile) bool { return true })
		for _, err := range []error{err, lerr, ferr} {
			if err != nil && !errors.Is(err, ErrImages) {
				t.Errorf("%v is no ErrImages", err)
			}
		}
		for _, file := range files {
			if !filepath.IsAbs(file.Path) {
				t.Errorf("%+v", file)
			}
		}
		for _, l := range links {
			if l.Name == "" || l.Link == "" {
				t.Errorf("%+v", l)
			}
		}
	})
}

package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// appDir is a directory to add, with a program, a link and a sticky directory.
func appDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "srv/app"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "srv/app/main.py"), []byte("print(1)\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("main.py", filepath.Join(dir, "srv/app/start")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "spool"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "spool"), 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	return dir
}

// baseTar is a file with a layer of one file.
func baseTar(t *testing.T) string {
	t.Helper()
	tr := tree{}
	tr.file("etc/base", 0o644, []byte("base"))
	data, err := tr.tar()
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "rootfs.tar")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func build(t *testing.T, args ...string) {
	t.Helper()
	if err := run(t.Context(), args); err != nil {
		t.Fatalf("images %s: %v", strings.Join(args, " "), err)
	}
}

// loaded is what an image file holds, with every digest verified.
type loaded struct {
	index  ocispec.Index
	config ocispec.Image
	layers [][]string // names, in order
}

func load(t *testing.T, name string) loaded {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	files, err := contents(f)
	if err != nil {
		t.Fatal(err)
	}
	var l loaded
	if err := readJSON(files[ocispec.ImageIndexFile], &l.index); err != nil {
		t.Fatal(err)
	}
	read := func(d ocispec.Descriptor) []byte {
		data, err := io.ReadAll(files[blobPath(d.Digest)])
		if err != nil || digest.FromBytes(data) != d.Digest || int64(len(data)) != d.Size {
			t.Fatalf("blob %s: %d bytes, error %v", d.Digest, len(data), err)
		}
		return data
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(read(l.index.Manifests[0]), &m); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(read(m.Config), &l.config); err != nil {
		t.Fatal(err)
	}
	for i, d := range m.Layers {
		data := read(d)
		if l.config.RootFS.DiffIDs[i] != d.Digest {
			t.Errorf("layer %d: diff id %s, digest %s", i, l.config.RootFS.DiffIDs[i], d.Digest)
		}
		var names []string
		for r := tar.NewReader(bytes.NewReader(data)); ; {
			h, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if h.Uid != 0 || h.Gid != 0 || !h.ModTime.Equal(epoch) {
				t.Errorf("%s: owner %d:%d, time %s", h.Name, h.Uid, h.Gid, h.ModTime)
			}
			if h.Name == "spool/" && h.Mode != 0o1777 {
				t.Errorf("spool/ has mode %o", h.Mode)
			}
			names = append(names, h.Name)
		}
		l.layers = append(l.layers, names)
	}
	return l
}

func TestDerive(t *testing.T) {
	dir := t.TempDir()
	base, derived := filepath.Join(dir, "base.tar"), filepath.Join(dir, "derived.tar")
	build(t, "-o", base, "-name", "localhost/base:1", "-layer", baseTar(t), "-env", "A=1", "-env", "B=1", "-user", "daemon", "/bin/a", "b")
	build(t, "-o", derived, "-name", "localhost/derived:2", "-from", base, "-add", appDir(t), "-env", "A=2", "-workdir", "/srv/app", "/srv/app/start")

	b, d := load(t, base), load(t, derived)
	if got := b.config.Config.Cmd; !slices.Equal(got, []string{"/bin/a", "b"}) {
		t.Errorf("base's command: %q", got)
	}
	c := d.config.Config
	if !slices.Equal(c.Cmd, []string{"/srv/app/start"}) || c.WorkingDir != "/srv/app" || c.User != "daemon" {
		t.Errorf("derived configuration: %+v", c)
	}
	if want := []string{defaultPath, "B=1", "A=2"}; !slices.Equal(c.Env, want) {
		t.Errorf("environment %q, want %q", c.Env, want)
	}
	if len(d.layers) != 2 || !slices.Equal(d.layers[0], b.layers[0]) {
		t.Fatalf("layers %q, want base's and one more", d.layers)
	}
	want := []string{"spool/", "srv/", "srv/app/", "srv/app/main.py", "srv/app/start"}
	if !slices.Equal(d.layers[1], want) {
		t.Errorf("added layer %q, want %q", d.layers[1], want)
	}
	a := d.index.Manifests[0].Annotations
	if a["io.containerd.image.name"] != "localhost/derived:2" || a[ocispec.AnnotationRefName] != "2" {
		t.Errorf("names %q", a)
	}
}

func TestSameInputSameBytes(t *testing.T) {
	dir, app, rootfs := t.TempDir(), appDir(t), baseTar(t)
	var files [2][]byte
	for i := range files {
		out := filepath.Join(dir, "image.tar")
		build(t, "-o", out, "-name", "localhost/same:1", "-layer", rootfs, "-add", app, "-add", app)
		data, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		files[i] = data
	}
	if !bytes.Equal(files[0], files[1]) {
		t.Error("two images of the same input differ")
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".image-*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestRefusals(t *testing.T) {
	out, rootfs := filepath.Join(t.TempDir(), "image.tar"), baseTar(t)
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"no base":      {[]string{"-o", out, "-name", "a/b:1"}, "one of"},
		"two bases":    {[]string{"-o", out, "-name", "a/b:1", "-layer", rootfs, "-from", rootfs}, "one of"},
		"no output":    {[]string{"-name", "a/b:1", "-layer", rootfs}, "-o FILE"},
		"no tag":       {[]string{"-o", out, "-name", "a/b", "-layer", rootfs}, "in full"},
		"bad variable": {[]string{"-o", out, "-name", "a/b:1", "-layer", rootfs, "-env", "A"}, "NAME=VALUE"},
		"no image":     {[]string{"-o", out, "-name", "a/b:1", "-from", rootfs}, ocispec.ImageIndexFile + ": is missing"},
		"no directory": {[]string{"-o", out, "-name", "a/b:1", "-layer", rootfs, "-add", rootfs + ".d"}, "no such file"},
		"no busybox":   {[]string{"-o", out, "-name", "a/b:1", "-busybox", rootfs}, "open busybox"},
		"not static":   {[]string{"-o", out, "-name", "a/b:1", "-busybox", "/bin/ls"}, "not static"},
		"no directory to write": {
			[]string{"-o", filepath.Join(program, "image.tar"), "-name", "a/b:1", "-layer", rootfs}, "write image"},
	} {
		t.Run(name, func(t *testing.T) {
			err := run(t.Context(), tc.args)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
			if _, err := os.Stat(out); err == nil {
				t.Error("it wrote an image")
			}
		})
	}
}

// FuzzDecode: an image file may hold anything.
func FuzzDecode(f *testing.F) {
	im := newImage()
	tr := tree{}
	tr.symlink("a", "b")
	if err := im.addTree(tr); err != nil {
		f.Fatal(err)
	}
	seed, err := os.CreateTemp(f.TempDir(), "")
	if err != nil {
		f.Fatal(err)
	}
	defer seed.Close()
	if err := im.encode(seed, "a/b:1"); err != nil {
		f.Fatal(err)
	}
	data, err := os.ReadFile(seed.Name())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		im := newImage()
		if err := im.decode(bytes.NewReader(data)); err != nil {
			return
		}
		for _, l := range im.layers {
			if l.content == nil || l.content.Size() != l.desc.Size {
				t.Errorf("layer %s without its content", l.desc.Digest)
			}
		}
	})
}

func TestStandIns(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "image.tar")
	build(t, "-o", out, "-name", "localhost/many:1", "-layer", baseTar(t), "-platform", "windows/amd64", "-stand-in", "linux/s390x", "-stand-in", "linux/arm64/v8", "-volume", "/srv", "-volume", "C:/x")
	f, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	files, err := contents(f)
	if err != nil {
		t.Fatal(err)
	}
	read := func(d ocispec.Descriptor, v any) {
		t.Helper()
		if err := readJSON(files[blobPath(d.Digest)], v); err != nil {
			t.Fatalf("blob %s: %v", d.Digest, err)
		}
	}
	var outer, index ocispec.Index
	if err := readJSON(files[ocispec.ImageIndexFile], &outer); err != nil {
		t.Fatal(err)
	}
	if d := outer.Manifests[0]; d.MediaType != ocispec.MediaTypeImageIndex || d.Annotations["io.containerd.image.name"] != "localhost/many:1" {
		t.Errorf("the name stands for %+v", d)
	}
	read(outer.Manifests[0], &index)
	layers := map[digest.Digest]bool{}
	var platforms []string
	for n, d := range index.Manifests {
		var m ocispec.Manifest
		var c ocispec.Image
		read(d, &m)
		read(m.Config, &c)
		if n > 0 {
			platforms = append(platforms, d.Platform.OS+"/"+d.Platform.Architecture+"/"+d.Platform.Variant)
		} else if len(c.Config.Volumes) != 2 || c.OS != "windows" {
			t.Errorf("platform %+v, volumes %v", c.Platform, c.Config.Volumes)
		}
		if c.OS != d.Platform.OS || c.Architecture != d.Platform.Architecture || c.Variant != d.Platform.Variant {
			t.Errorf("the configuration of %+v is for %+v", d.Platform, c.Platform)
		}
		layers[m.Layers[0].Digest] = files[blobPath(m.Layers[0].Digest)] != nil
	}
	if want := []string{"linux/s390x/", "linux/arm64/v8"}; !slices.Equal(platforms, want) || len(layers) != 3 {
		t.Errorf("stand-ins for %q with layers %v, want %q with one each", platforms, layers, want)
	}
	for _, bad := range []string{"linux", "linux/", "a/b/c/d"} {
		if err := run(t.Context(), []string{"-o", out, "-name", "a/b:1", "-layer", baseTar(t), "-stand-in", bad}); err == nil || !strings.Contains(err.Error(), "OS/ARCHITECTURE") {
			t.Errorf("-stand-in %q: %v", bad, err)
		}
	}
}

package rootfs

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"
)

// layers are the directories of an overlay.
type layers struct {
	bundle, lower, upper, work string
}

func newLayers(t *testing.T) layers {
	t.Helper()
	return layersBelow(t, tmpfs(t))
}

// tmpfs is a directory with extended attributes and devices, wherever the tests run.
func tmpfs(t *testing.T) string {
	t.Helper()
	base := t.TempDir()
	if err := unix.Mount("tmpfs", base, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(base, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return base
}

func layersBelow(t *testing.T, base string) layers {
	t.Helper()
	must(t, os.MkdirAll(base, 0o755))
	l := layers{base + "/bundle", base + "/lower", base + "/upper", base + "/work"}
	for _, d := range []string{l.bundle, l.lower, l.upper, l.work} {
		must(t, os.Mkdir(d, 0o755))
	}
	return l
}

func (l layers) rootfs() *Rootfs {
	return New(l.bundle, []mount.Mount{{
		Type:    "overlay",
		Source:  "overlay",
		Options: []string{"index=off", "lowerdir=" + l.lower, "upperdir=" + l.upper, "workdir=" + l.work},
	}})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(content), 0o644))
}

func mounted(t *testing.T, path string) bool {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	return strings.Contains(string(data), " "+path+" ")
}

func TestMount(t *testing.T) {
	l := newLayers(t)
	write(t, l.lower+"/etc/os-release", "snap\n")
	r := l.rootfs()
	if want := filepath.Join(l.bundle, "rootfs"); r.Path != want {
		t.Errorf("path %s, want %s", r.Path, want)
	}
	// Nothing is mounted yet: to unmount that succeeds.
	must(t, r.Unmount())
	for range 2 {
		must(t, r.Mount())
		if data, err := os.ReadFile(r.Path + "/etc/os-release"); err != nil || string(data) != "snap\n" {
			t.Errorf("%q, %v", data, err)
		}
		// What was mounted below goes with it.
		must(t, unix.Mount("tmpfs", r.Path+"/etc", "tmpfs", 0, ""))
		must(t, r.Unmount())
		if mounted(t, r.Path) || mounted(t, r.Path+"/etc") {
			t.Error("still mounted")
		}
	}
}

func TestMountFails(t *testing.T) {
	l := newLayers(t)
	r := New(l.bundle, []mount.Mount{
		{Type: "tmpfs", Source: "tmpfs"},
		{Type: "overlay", Source: "overlay", Options: []string{"lowerdir=" + l.lower + "/gone"}},
	})
	if err := r.Mount(); err == nil || !strings.Contains(err.Error(), "mount rootfs") {
		t.Errorf("%v", err)
	}
	if mounted(t, r.Path) {
		t.Error("the first mount was left")
	}
	if err := New(l.bundle+"/gone", r.mounts).Mount(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a bundle: %v", err)
	}
}

// A bundle that brings its rootfs as a plain directory is used as it is.
func TestPlainDirectory(t *testing.T) {
	bundle := t.TempDir()
	r := New(bundle, nil)
	must(t, r.Mount())
	if _, err := os.Stat(r.Path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Mount made a directory: %v", err)
	}
	must(t, r.Unmount())
	must(t, r.Reset())
	if fresh, err := r.Fresh(); fresh || err != nil {
		t.Errorf("fresh %t, %v", fresh, err)
	}
	wantRefusal(t, r, "a plain directory")
}

// Only an overlay with a writable layer can be captured.
func TestRefusals(t *testing.T) {
	l := newLayers(t)
	for words, m := range map[string]mount.Mount{
		`of type "bind"`:    {Type: "bind", Source: l.lower, Options: []string{"rbind"}},
		`of type "overlay"`: {Type: "overlay", Source: "overlay", Options: []string{"lowerdir=/a:/b"}},
		`of type "erofs"`:   {Type: "erofs", Source: "/x", Options: []string{"upperdir=/tricky"}},
	} {
		wantRefusal(t, New(l.bundle, []mount.Mount{m}), words)
	}
	// The last mount is what the container sees.
	wantRefusal(t, New(l.bundle, append(l.rootfs().mounts, mount.Mount{Type: "bind"})), `of type "bind"`)
}

func wantRefusal(t *testing.T, r *Rootfs, words string) {
	t.Helper()
	for _, err := range []error{r.Capturable(), r.Capture(t.Context(), t.TempDir())} {
		if err == nil || !strings.Contains(err.Error(), words) || !strings.Contains(err.Error(), "use the overlayfs snapshotter") {
			t.Errorf("%v, want %s", err, words)
		}
	}
	if err := r.Apply(t.Context(), t.TempDir()); err == nil || !strings.Contains(err.Error(), "not fresh") {
		t.Errorf("Apply: %v", err)
	}
}

// facts is what must survive of one file.
type facts struct {
	mode     uint32
	uid, gid uint32
	rdev     uint64
	nlink    uint64
	size     int64
	mtime    unix.Timespec
	content  string
	xattrs   string
	holes    bool
}

// survey lists a tree without the attribute that ties it to its place.
func survey(t *testing.T, dir string) map[string]facts {
	t.Helper()
	tree := make(map[string]facts)
	must(t, filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		must(t, err)
		var st unix.Stat_t
		must(t, unix.Lstat(path, &st))
		f := facts{mode: st.Mode, uid: st.Uid, gid: st.Gid, rdev: st.Rdev, mtime: st.Mtim, xattrs: xattrs(t, path)}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			data, err := os.ReadFile(path)
			must(t, err)
			f.content, f.size, f.nlink = fmt.Sprintf("%x", sha256.Sum256(data)), st.Size, st.Nlink
			f.holes = st.Blocks*512 < st.Size
		case unix.S_IFLNK:
			f.content, err = os.Readlink(path)
			must(t, err)
		}
		rel, err := filepath.Rel(dir, path)
		must(t, err)
		tree[rel] = f
		return nil
	}))
	return tree
}

func xattrs(t *testing.T, path string) string {
	t.Helper()
	buf := make([]byte, 4096)
	n, err := unix.Llistxattr(path, buf)
	must(t, err)
	var list []string
	for name := range strings.SplitSeq(string(buf[:n]), "\x00") {
		if name == "" || name == originXattr {
			continue
		}
		value := make([]byte, 4096)
		n, err := unix.Lgetxattr(path, name, value)
		must(t, err)
		list = append(list, fmt.Sprintf("%s=%q", name, value[:n]))
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

// change does to a mounted rootfs what programs do.
func change(t *testing.T, root string) {
	t.Helper()
	must(t, os.Remove(root+"/removed"))
	must(t, os.RemoveAll(root+"/emptied"))
	must(t, os.Mkdir(root+"/emptied", 0o711))
	write(t, root+"/emptied/new", "instead")
	write(t, root+"/changed", "after")
	write(t, root+"/deep/er/file", "x")
	must(t, os.Chmod(root+"/deep/er", 0o2750))
	must(t, os.Chown(root+"/deep/er", 12, 34))
	write(t, root+"/setuid", "#!")
	must(t, os.Chown(root+"/setuid", 0, 7))
	must(t, unix.Chmod(root+"/setuid", 0o6755))
	must(t, unix.Setxattr(root+"/setuid", "trusted.mine", []byte("a\x00b"), 0))
	must(t, os.Link(root+"/setuid", root+"/deep/link"))
	must(t, os.Symlink("/nowhere", root+"/symlink"))
	must(t, os.Lchown(root+"/symlink", 5, 6))
	must(t, unix.Mknod(root+"/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(t, unix.Mknod(root+"/fifo", unix.S_IFIFO|0o640, 0))
	must(t, unix.Mknod(root+"/socket", unix.S_IFSOCK|0o600, 0))
	write(t, root+"/sparse", "begin")
	must(t, os.Truncate(root+"/sparse", 8<<20))
	write(t, root+"/empty", "")
	write(t, root+"/weird\nname ü\\", "y")
	past := time.Unix(1234567890, 987654321)
	for _, p := range []string{"/deep/er/file", "/deep/er", "/deep", "/setuid", ""} {
		must(t, os.Chtimes(root+p, past, past))
	}
}

func TestCaptureAndApply(t *testing.T) {
	base := tmpfs(t)
	from := layersBelow(t, base+"/from")
	for _, f := range []string{"/removed", "/emptied/old", "/changed", "/kept"} {
		write(t, from.lower+f, "before")
	}
	src := from.rootfs()
	if fresh, err := src.Fresh(); !fresh || err != nil {
		t.Errorf("fresh %t, %v", fresh, err)
	}
	must(t, src.Capturable())
	must(t, src.Mount())
	change(t, src.Path)
	if fresh, err := src.Fresh(); fresh || err != nil {
		t.Errorf("after writes: fresh %t, %v", fresh, err)
	}
	diff := base + "/diff"
	must(t, os.Mkdir(diff, 0o700))
	must(t, src.Capture(t.Context(), diff))
	captured := survey(t, diff)
	wantSame(t, "the captured difference", captured, survey(t, from.upper))
	if f := captured["removed"]; f.mode&unix.S_IFMT != unix.S_IFCHR || f.rdev != 0 {
		t.Errorf("a removed file is no whiteout: %+v", f)
	}
	if f := captured["emptied"]; !strings.Contains(f.xattrs, `trusted.overlay.opaque="y"`) {
		t.Errorf("a directory made anew is not opaque: %+v", f)
	}
	if f := captured["setuid"]; f.nlink != 2 || f.mode&0o7777 != 0o6755 {
		t.Errorf("%+v", f)
	}
	if _, ok := captured["kept"]; ok {
		t.Error("an unchanged file was captured")
	}

	to := layersBelow(t, base+"/to")
	to.lower = from.lower
	dst := to.rootfs()
	must(t, dst.Apply(t.Context(), diff))
	wantSame(t, "the applied difference", survey(t, to.upper), captured)
	must(t, dst.Mount())
	wantSame(t, "the new rootfs", survey(t, dst.Path), survey(t, src.Path))
	must(t, errors.Join(src.Unmount(), dst.Unmount()))

	// A second checkpoint must not meet the first one's files.
	if err := dst.Apply(t.Context(), diff); err == nil || !strings.Contains(err.Error(), "not fresh") {
		t.Errorf("%v", err)
	}
	must(t, dst.Reset())
	if fresh, err := dst.Fresh(); !fresh || err != nil {
		t.Errorf("after Reset: fresh %t, %v", fresh, err)
	}
	must(t, dst.Apply(t.Context(), diff))
	wantSame(t, "the difference applied again", survey(t, to.upper), captured)
}

func wantSame(t *testing.T, what string, got, want map[string]facts) {
	t.Helper()
	for name, f := range want {
		if g, ok := got[name]; !ok {
			t.Errorf("%s lacks %q", what, name)
		} else if g != f {
			t.Errorf("%s: %q is %+v, want %+v", what, name, g, f)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s has %q too many", what, name)
		}
	}
}

// What a failed Apply wrote is taken back.
func TestFailedApply(t *testing.T) {
	l := newLayers(t)
	r := l.rootfs()
	diff := t.TempDir()
	write(t, diff+"/a", "a")
	if err := r.Apply(t.Context(), diff+"/gone"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	// The layer fills up half way.
	must(t, unix.Mount("tmpfs", l.upper, "tmpfs", 0, "size=64k"))
	defer unix.Unmount(l.upper, 0)
	write(t, diff+"/b", strings.Repeat("b", 1<<20))
	if err := r.Apply(t.Context(), diff); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("%v", err)
	}
	if fresh, err := r.Fresh(); !fresh || err != nil {
		t.Errorf("fresh %t, %v", fresh, err)
	}
}

func TestLayerGone(t *testing.T) {
	l := newLayers(t)
	r := l.rootfs()
	must(t, os.Remove(l.upper))
	_, freshErr := r.Fresh()
	for _, err := range []error{freshErr, r.Reset(), r.Apply(t.Context(), l.lower), r.Capture(t.Context(), t.TempDir())} {
		if !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%v", err)
		}
	}
}

package store

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
)

// diffTree makes a tree with one of each kind below dir/diff.
func diffTree(t *testing.T, dir string) string {
	t.Helper()
	root := filepath.Join(dir, "diff")
	in := func(name string) string { return filepath.Join(root, name) }
	err := errors.Join(
		os.MkdirAll(in("etc"), 0o755),
		os.WriteFile(in("etc/hosts"), []byte("127.0.0.1 localhost"), 0o644),
		os.WriteFile(in("empty"), nil, 0o600),
		os.Symlink("etc/hosts", in("link")),
		unix.Mknod(in("whiteout"), unix.S_IFCHR, 0),
		unix.Mknod(in("disk"), unix.S_IFBLK|0o600, int(unix.Mkdev(8, 1))),
		unix.Mkfifo(in("fifo"), 0o600),
		unix.Lsetxattr(in("etc"), "trusted.overlay.opaque", []byte("y"), 0),
		unix.Lsetxattr(in("etc/hosts"), "user.note", []byte("kept"), 0),
	)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func digestTree(t *testing.T, root string) checkpoint.Diff {
	t.Helper()
	dir, err := openDir(filepath.Dir(root))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	diff, err := digestDiff(t.Context(), dir, filepath.Base(root), nil)
	if err != nil {
		t.Fatal(err)
	}
	return diff
}

func TestDiffDigestCoversTheTree(t *testing.T) {
	base := digestTree(t, diffTree(t, t.TempDir()))
	if again := digestTree(t, diffTree(t, t.TempDir())); again != base {
		t.Fatalf("the same tree twice: %+v and %+v", base, again)
	}
	if base.Files != 7 || base.Bytes != 19 || base.Format != "overlay" {
		t.Errorf("diff %+v", base)
	}
	replace := func(path string, create func(path string) error) error {
		return errors.Join(os.Remove(path), create(path))
	}
	seen := map[string]string{base.SHA256: "the tree itself"}
	for _, tc := range []struct {
		name   string
		change func(in func(string) string) error
	}{
		{"name", func(in func(string) string) error { return os.Rename(in("empty"), in("void")) }},
		{"place", func(in func(string) string) error { return os.Rename(in("empty"), in("etc/empty")) }},
		{"mode", func(in func(string) string) error { return os.Chmod(in("etc/hosts"), 0o600) }},
		{"setuid", func(in func(string) string) error { return os.Chmod(in("etc/hosts"), 0o644|os.ModeSetuid) }},
		{"mode of a directory", func(in func(string) string) error { return os.Chmod(in("etc"), 0o700) }},
		{"mode of the root", func(in func(string) string) error { return os.Chmod(in("."), 0o711) }},
		{"uid", func(in func(string) string) error { return os.Chown(in("empty"), 1, 0) }},
		{"gid", func(in func(string) string) error { return os.Chown(in("empty"), 0, 1) }},
		{"owner of a link", func(in func(string) string) error { return os.Lchown(in("link"), 1, 0) }},
		{"content", func(in func(string) string) error {
			return os.WriteFile(in("etc/hosts"), []byte("127.0.0.2 localhost"), 0o644)
		}},
		{"target of a link", func(in func(string) string) error {
			return replace(in("link"), func(p string) error { return os.Symlink("etc/hostz", p) })
		}},
		{"whiteout gone", func(in func(string) string) error { return os.Remove(in("whiteout")) }},
		{"whiteout is a file", func(in func(string) string) error {
			return replace(in("whiteout"), func(p string) error { return errors.Join(os.WriteFile(p, nil, 0), os.Chmod(p, 0)) })
		}},
		{"minor number", func(in func(string) string) error {
			return replace(in("disk"), func(p string) error { return unix.Mknod(p, unix.S_IFBLK|0o600, int(unix.Mkdev(8, 2))) })
		}},
		{"major number", func(in func(string) string) error {
			return replace(in("disk"), func(p string) error { return unix.Mknod(p, unix.S_IFBLK|0o600, int(unix.Mkdev(9, 1))) })
		}},
		{"block or character", func(in func(string) string) error {
			return replace(in("disk"), func(p string) error { return unix.Mknod(p, unix.S_IFCHR|0o600, int(unix.Mkdev(8, 1))) })
		}},
		{"opaque gone", func(in func(string) string) error { return unix.Lremovexattr(in("etc"), "trusted.overlay.opaque") }},
		{"value of an attribute", func(in func(string) string) error {
			return unix.Lsetxattr(in("etc/hosts"), "user.note", []byte("lost"), 0)
		}},
		{"name of an attribute", func(in func(string) string) error {
			return errors.Join(unix.Lremovexattr(in("etc/hosts"), "user.note"), unix.Lsetxattr(in("etc/hosts"), "user.nose", []byte("kept"), 0))
		}},
		{"long attribute", func(in func(string) string) error {
			return unix.Lsetxattr(in("etc/hosts"), "user.note", []byte(strings.Repeat("x", 2000)), 0)
		}},
		{"attribute of a device", func(in func(string) string) error {
			return unix.Lsetxattr(in("disk"), "trusted.note", []byte("x"), 0)
		}},
		{"capability", func(in func(string) string) error {
			return unix.Lsetxattr(in("etc/hosts"), "security.capability", []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0)
		}},
		{"empty directory", func(in func(string) string) error { return os.Mkdir(in("new"), 0o755) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root := diffTree(t, t.TempDir())
			if err := tc.change(func(name string) string { return filepath.Join(root, name) }); err != nil {
				t.Fatal(err)
			}
			sum := digestTree(t, root).SHA256
			if other, ok := seen[sum]; ok {
				t.Errorf("digest is that of %s", other)
			}
			seen[sum] = tc.name
		})
	}
}

func TestDiffDigestIgnoresWhatBelongsToTheHost(t *testing.T) {
	root := diffTree(t, t.TempDir())
	base := digestTree(t, root)
	for _, err := range []error{
		os.Chtimes(filepath.Join(root, "etc/hosts"), testTime, testTime),
		unix.Lsetxattr(filepath.Join(root, "etc/hosts"), "security.snaptest", []byte("label"), 0),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := digestTree(t, root); got != base {
		t.Errorf("digest %+v, want %+v", got, base)
	}
}

// A hole is not read, and what is one makes no difference.
func TestDiffDigestOfHoles(t *testing.T) {
	tree := func(size int64, write func(f *os.File) error) checkpoint.Diff {
		root := diffTree(t, t.TempDir())
		f, err := os.Create(filepath.Join(root, "sparse"))
		if err == nil {
			err = errors.Join(write(f), f.Truncate(size), f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
		return digestTree(t, root)
	}
	at := func(off int64, data []byte) func(*os.File) error {
		return func(f *os.File) error {
			_, err := f.WriteAt(data, off)
			return err
		}
	}
	const short = 1 << 20
	base := tree(short, at(8192, []byte("x")))
	if base.Bytes != 19+block {
		t.Errorf("%d bytes", base.Bytes)
	}
	full := make([]byte, short)
	full[8192] = 'x'
	if got := tree(short, at(0, full)); got != base {
		t.Errorf("with zeroes instead of holes: %+v, want %+v", got, base)
	}
	for name, other := range map[string]checkpoint.Diff{
		"longer":    tree(short+1, at(8192, []byte("x"))),
		"elsewhere": tree(short, at(8192+block, []byte("x"))),
		"other":     tree(short, at(8192, []byte("y"))),
	} {
		if other.SHA256 == base.SHA256 {
			t.Errorf("%s: the same digest", name)
		}
	}
	// Hashing a terabyte would take longer than the test may.
	if got := tree(1<<40, at(1<<39, []byte("x"))); got.Bytes != 19+block {
		t.Errorf("%d bytes of a terabyte", got.Bytes)
	}
}

func TestTreeDepthIsBounded(t *testing.T) {
	root := filepath.Join(t.TempDir(), "diff")
	path := root
	for i := range maxDepth {
		path = filepath.Join(path, strconv.Itoa(i%10))
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
	dir, err := openDir(filepath.Dir(root))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if _, err := digestDiff(t.Context(), dir, "diff", nil); !errors.Is(err, checkpoint.ErrInvalid) {
		t.Errorf("digestDiff: %v", err)
	}
}

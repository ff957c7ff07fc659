package store

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
)

func TestOpenCreatesPrivateLayout(t *testing.T) {
	root := filepath.Join(t.TempDir(), "a", "b", "store")
	s, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	if s.Root() != root {
		t.Errorf("Root() = %s, want %s", s.Root(), root)
	}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode() != fs.ModeDir|0o700 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(root); err != nil {
		t.Errorf("open again: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, tc := range []struct {
		name, want string
		prepare    func(root string) error
	}{
		{"world-readable root", "chmod 0700", func(root string) error {
			return errors.Join(os.Mkdir(root, 0o700), os.Chmod(root, 0o755))
		}},
		{"group-accessible root", "chmod 0700", func(root string) error {
			return errors.Join(os.Mkdir(root, 0o700), os.Chmod(root, 0o710))
		}},
		{"foreign root", "owned by uid 1234", func(root string) error {
			return errors.Join(os.Mkdir(root, 0o700), os.Chown(root, 1234, 0))
		}},
		{"file", "not a directory", func(root string) error { return os.WriteFile(root, nil, 0o600) }},
		{"part that is a link", "entries is not a directory", func(root string) error {
			return errors.Join(os.Mkdir(root, 0o700), os.Symlink("/", filepath.Join(root, entriesDir)))
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "store")
			if err := tc.prepare(root); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(root); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Open: %v, want %q", err, tc.want)
			}
		})
	}
}

func TestCommitRegistersWhatWasWritten(t *testing.T) {
	s := newStore(t)
	if empty, err := s.Empty(); err != nil || !empty {
		t.Errorf("Empty() = %v, %v at first", empty, err)
	}
	meta := testMeta("web", testTime.In(time.FixedZone("somewhere", 3600)))
	meta.Files = []checkpoint.File{{Path: "mapped/big-1.img", Pages: true}, {Path: "gone.img"}}
	e := mustRegister(t, s, meta, CommitOptions{Name: "web"})

	if e.Name != "web" || !strings.HasPrefix(e.Digest, "sha256:") || e.Dir != filepath.Join(s.Root(), "entries", "sha256-"+e.Digest[7:]) {
		t.Errorf("entry %q %q %q", e.Name, e.Digest, e.Dir)
	}
	c := e.Checkpoint
	if c.SchemaVersion != 1 || !c.CreatedAt.Equal(testTime) || !reflect.DeepEqual(c.Source, meta.Source) ||
		!reflect.DeepEqual(c.Host, meta.Host) || !reflect.DeepEqual(c.Fingerprint, meta.Fingerprint) || c.Timing != meta.Timing {
		t.Errorf("metadata changed: %+v", c)
	}
	var paths, pages []string
	for _, f := range c.Files {
		paths = append(paths, f.Path)
		if f.Pages {
			pages = append(pages, f.Path)
		}
		if content := testImages[f.Path]; f.Size != int64(len(content)) || f.SHA256 != digestOf([]byte(content)) {
			t.Errorf("%s: size %d digest %s", f.Path, f.Size, f.SHA256)
		}
		info, err := os.Stat(filepath.Join(e.Dir, "images", f.Path))
		if err != nil || info.Mode() != 0o400 {
			t.Errorf("%s: mode %v, %v", f.Path, info.Mode(), err)
		}
	}
	if len(paths) != len(testImages) || !slices.IsSorted(paths) {
		t.Errorf("files %q", paths)
	}
	if want := []string{"mapped/big-1.img", "pages-1.img"}; !slices.Equal(pages, want) {
		t.Errorf("pages %q, want %q", pages, want)
	}
	if c.Diff.Format != "overlay" || c.Diff.Files != 5 || c.Diff.Bytes != 4 {
		t.Errorf("diff %+v", c.Diff)
	}
	if got, err := s.Lookup(meta.Fingerprint.Key()); err != nil || !reflect.DeepEqual(got, []checkpoint.Entry{e}) {
		t.Errorf("Lookup = %+v, %v", got, err)
	}
	if empty, err := s.Empty(); err != nil || empty {
		t.Errorf("Empty() = %v, %v afterwards", empty, err)
	}
	if err := s.Verify(t.Context(), e, nil); err != nil {
		t.Error(err)
	}
	assertClean(t, s, 1)
}

func TestCommitGivesImagesToRoot(t *testing.T) {
	s := newStore(t)
	d := newDraft(t, s)
	image := filepath.Join(d.ImagesDir(), "core-1.img")
	inDiff := filepath.Join(d.DiffDir(), "file")
	for _, path := range []string{image, inDiff} {
		if err := errors.Join(os.WriteFile(path, []byte("x"), 0o666), os.Chown(path, 1000, 1000), os.Chmod(path, 0o777|os.ModeSetuid)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(d.DiffDir(), 0o755); err != nil {
		t.Fatal(err)
	}
	e, err := d.Commit(t.Context(), testMeta("x", testTime), CommitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]struct{ mode, uid uint32 }{
		"images":            {unix.S_IFDIR | 0o700, 0},
		"images/core-1.img": {unix.S_IFREG | 0o400, 0},
		"diff":              {unix.S_IFDIR | 0o755, 0},
		"diff/file":         {unix.S_IFREG | 0o4777, 1000}, // the container's own business
	} {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(e.Dir, path), &st); err != nil || st.Mode != want.mode || st.Uid != want.uid {
			t.Errorf("%s: mode %o uid %d, %v; want %o %d", path, st.Mode, st.Uid, err, want.mode, want.uid)
		}
	}
}

func newDraft(t testing.TB, s *Store) *Draft {
	t.Helper()
	d, err := s.NewDraft()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Discard(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func TestCommitRefuses(t *testing.T) {
	link := func(dir func(*Draft) string, name string) func(d *Draft) error {
		return func(d *Draft) error { return os.Symlink("/etc/passwd", filepath.Join(dir(d), name)) }
	}
	for _, tc := range []struct {
		name, want string
		draft      func(*Draft) error
		meta       func(*checkpoint.Checkpoint)
		opts       CommitOptions
	}{
		{name: "link among the images", want: "core-1.img is a symbolic link", draft: link((*Draft).ImagesDir, "core-1.img")},
		{name: "fifo among the images", want: "is a fifo", draft: func(d *Draft) error {
			return unix.Mkfifo(filepath.Join(d.ImagesDir(), "pipe"), 0o600)
		}},
		{name: "device among the images", want: "is a device", draft: func(d *Draft) error {
			return unix.Mknod(filepath.Join(d.ImagesDir(), "dev"), unix.S_IFCHR|0o600, 0)
		}},
		{name: "images is a link", want: "not a directory", draft: func(d *Draft) error {
			return errors.Join(os.RemoveAll(d.ImagesDir()), os.Symlink("/etc", d.ImagesDir()))
		}},
		{name: "diff is missing", want: "diff is missing", draft: func(d *Draft) error { return os.Remove(d.DiffDir()) }},
		{name: "something beside", want: `unexpected "extra"`, draft: func(d *Draft) error {
			return os.WriteFile(filepath.Join(d.dir, "extra"), nil, 0o600)
		}},
		{name: "control characters in a file name", want: "is not plain", draft: func(d *Draft) error {
			return os.WriteFile(filepath.Join(d.ImagesDir(), "a\x1b[2J"), nil, 0o600)
		}},
		{name: "no time", want: "createdAt", meta: func(c *checkpoint.Checkpoint) { c.CreatedAt = time.Time{} }},
		{name: "escape in the name of the container", want: "source.container", meta: func(c *checkpoint.Checkpoint) { c.Source.Container = "a\x1b]0;" }},
		{name: "fingerprint that JSON would change", want: `"env.X" is not UTF-8`, meta: func(c *checkpoint.Checkpoint) { c.Fingerprint["env.X"] = "\xff" }},
		{name: "bad name", want: "not allowed", opts: CommitOptions{Name: "No Name"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStore(t)
			d := newDraft(t, s)
			meta := testMeta("x", testTime)
			if tc.draft != nil {
				if err := tc.draft(d); err != nil {
					t.Fatal(err)
				}
			}
			if tc.meta != nil {
				tc.meta(&meta)
			}
			_, err := d.Commit(t.Context(), meta, tc.opts)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("Commit: %v, want %q", err, tc.want)
			}
			if tc.name != "images is a link" && !errors.Is(err, checkpoint.ErrInvalid) {
				t.Errorf("%v is no ErrInvalid", err)
			}
			if err := d.Discard(); err != nil {
				t.Fatal(err)
			}
			assertClean(t, s, 0)
		})
	}
}

func TestCommitHeedsContext(t *testing.T) {
	s := newStore(t)
	d := newDraft(t, s)
	if err := fill(d); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("enough")
	cancel(stop)
	if _, err := d.Commit(ctx, testMeta("x", testTime), CommitOptions{}); !errors.Is(err, stop) {
		t.Errorf("Commit: %v, want %v", err, stop)
	}
	if _, err := d.Commit(t.Context(), testMeta("x", testTime), CommitOptions{}); err != nil {
		t.Errorf("Commit again: %v", err)
	}
	assertClean(t, s, 1)
}

func TestDraftEnds(t *testing.T) {
	s := newStore(t)
	d := newDraft(t, s)
	for range 2 {
		if err := d.Discard(); err != nil {
			t.Error(err)
		}
	}
	if _, err := d.Commit(t.Context(), testMeta("x", testTime), CommitOptions{}); !errors.Is(err, checkpoint.ErrInvalid) {
		t.Errorf("Commit after Discard: %v", err)
	}
	d = newDraft(t, s)
	if _, err := d.Commit(t.Context(), testMeta("x", testTime), CommitOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Commit(t.Context(), testMeta("x", testTime), CommitOptions{}); !errors.Is(err, checkpoint.ErrInvalid) {
		t.Errorf("Commit after Commit: %v", err)
	}
	if err := d.Discard(); err != nil {
		t.Error(err)
	}
	assertClean(t, s, 1)
}

func TestCommitSameContentTwice(t *testing.T) {
	s := newStore(t)
	meta := testMeta("x", testTime)
	first := mustRegister(t, s, meta, CommitOptions{Name: "one"})
	if _, err := s.RecordFailure(first.Digest, "because"); err != nil {
		t.Fatal(err)
	}
	again := mustRegister(t, s, meta, CommitOptions{})
	if again.Digest != first.Digest || again.Name != "one" || again.State.Failures != 1 {
		t.Errorf("again: %+v", again)
	}
	renamed := mustRegister(t, s, meta, CommitOptions{Name: "two"})
	if renamed.Name != "two" {
		t.Errorf("renamed: %q", renamed.Name)
	}
	if _, err := s.Resolve("one"); !errors.Is(err, checkpoint.ErrNotFound) {
		t.Errorf("former name: %v", err)
	}
	assertClean(t, s, 1)

	// A damaged one is repaired, and its failures are forgotten with its damage.
	if err := os.Remove(filepath.Join(first.Dir, "images", "core-1.img")); err != nil {
		t.Fatal(err)
	}
	repaired := mustRegister(t, s, meta, CommitOptions{})
	if repaired.Name != "two" || repaired.State.Failures != 0 {
		t.Errorf("repaired: %+v", repaired)
	}
	if err := s.Verify(t.Context(), repaired, nil); err != nil {
		t.Error(err)
	}
	if n, err := s.Sweep(); n != 1 || err != nil {
		t.Errorf("Sweep = %d, %v; want the damaged one", n, err)
	}
	assertClean(t, s, 1)
}

func TestCommitWithoutFingerprint(t *testing.T) {
	s := newStore(t)
	meta := testMeta("x", testTime)
	meta.Fingerprint = nil
	e := mustRegister(t, s, meta, CommitOptions{Name: "foreign"})
	if got, err := s.Lookup(meta.Fingerprint.Key()); len(got) != 0 || err != nil {
		t.Errorf("Lookup = %v, %v: a checkpoint without a fingerprint fits nothing", got, err)
	}
	if got, err := s.Resolve("foreign"); err != nil || got.Digest != e.Digest {
		t.Errorf("Resolve = %v, %v", got.Digest, err)
	}
}

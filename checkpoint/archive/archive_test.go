package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/store"
)

func newStore(t testing.TB) *store.Store {
	t.Helper()
	st, err := store.Open(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// sparseSize is far more than can be written in a test.
const sparseSize = 1 << 40

// full registers a checkpoint with everything that one can hold.
func full(t testing.TB, st *store.Store) checkpoint.Entry {
	t.Helper()
	d, err := st.NewDraft()
	if err != nil {
		t.Fatal(err)
	}
	images, diff := d.ImagesDir(), d.DiffDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(filepath.Join(images, "sub"), 0o700))
	must(os.WriteFile(filepath.Join(images, "sub", "core-1.img"), []byte("registers"), 0o600))
	must(os.WriteFile(filepath.Join(images, "pages-1.img"), bytes.Repeat([]byte("memory"), 2000), 0o600))
	must(os.WriteFile(filepath.Join(images, "empty.img"), nil, 0o600))
	must(os.Chown(filepath.Join(images, "empty.img"), 1000, 1000)) // of no account
	holes(t, filepath.Join(images, "pages-mapped-1.img"), sparseSize)

	must(os.MkdirAll(filepath.Join(diff, "var/lib"), 0o755))
	must(os.WriteFile(filepath.Join(diff, "var/lib/data"), []byte("rows"), 0o640))
	must(os.Link(filepath.Join(diff, "var/lib/data"), filepath.Join(diff, "var/other")))
	must(os.Chown(filepath.Join(diff, "var/lib/data"), 1000, 70000))
	must(os.Chmod(filepath.Join(diff, "var/lib/data"), 0o640|os.ModeSetuid))
	must(unix.Lsetxattr(filepath.Join(diff, "var/lib/data"), "trusted.test", []byte("a\x00=b"), 0))
	must(unix.Lsetxattr(filepath.Join(diff, "var/lib"), "trusted.overlay.opaque", []byte("y"), 0))
	at := time.Unix(1_700_000_000, 123_456_789)
	must(os.Chtimes(filepath.Join(diff, "var/lib/data"), at, at))
	must(os.Symlink("../../etc/shadow", filepath.Join(diff, "link")))
	must(os.WriteFile(filepath.Join(diff, "not utf-8 \xff\n"), []byte("x"), 0o600))
	must(os.WriteFile(filepath.Join(diff, strings.Repeat("long", 60)), []byte("x"), 0o600))
	holes(t, filepath.Join(diff, "holes"), 1<<20+17)
	must(unix.Mknod(filepath.Join(diff, "whiteout"), unix.S_IFCHR, 0))
	must(unix.Mknod(filepath.Join(diff, "fifo"), unix.S_IFIFO|0o644, 0))
	must(unix.Mknod(filepath.Join(diff, "socket"), unix.S_IFSOCK|0o666, 0))
	must(os.Chmod(diff, 0o755))
	meta := checkpoint.Checkpoint{
		CreatedAt:   time.Date(2026, 3, 1, 12, 0, 0, 5, time.UTC),
		Source:      checkpoint.Source{Namespace: "default", Container: "web", Processes: 1},
		Fingerprint: checkpoint.Fingerprint{"args": "x"},
		Host:        checkpoint.HostFacts{Arch: "amd64", Kernel: "6.1.0", CRIU: 40201, Cgroup: "v2"},
	}
	e, err := d.Commit(t.Context(), meta, store.CommitOptions{Name: "web"})
	must(err)
	return e
}

// holes makes a file with data at its beginning, in its middle and at its end.
func holes(t testing.TB, path string, size int64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, at := range []int64{0, size / 2, size - 5} {
		if _, err := f.WriteAt([]byte("pages"), at); err != nil {
			t.Fatal(err)
		}
	}
}

func export(t testing.TB, st *store.Store, e checkpoint.Entry) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := Write(t.Context(), st, e, &out, nil); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// nothing fails unless the store is empty, drafts included.
func nothing(t *testing.T, st *store.Store) {
	t.Helper()
	for _, dir := range []string{"entries", "drafts", "names", "index"} {
		if left, err := os.ReadDir(filepath.Join(st.Root(), dir)); err != nil || len(left) > 0 {
			t.Errorf("%s holds %v (%v)", dir, left, err)
		}
	}
}

func TestThereAndBack(t *testing.T) {
	from, to := newStore(t), newStore(t)
	e := full(t, from)
	var wrote, read int64
	var stream bytes.Buffer
	if err := Write(t.Context(), from, e, &stream, func(done, _ int64) { wrote = done }); err != nil {
		t.Fatal(err)
	}
	if stream.Len() > 2<<20 {
		t.Errorf("%d bytes: holes were written", stream.Len())
	}
	got, err := Read(t.Context(), to, bytes.NewReader(stream.Bytes()), Options{Name: "copy", Digest: e.Digest, Progress: func(done, _ int64) { read = done }})
	if err != nil {
		t.Fatal(err)
	}
	if got.Digest != e.Digest || got.Name != "copy" {
		t.Errorf("imported %s %q, want %s", got.Digest, got.Name, e.Digest)
	}
	if wrote == 0 || read == 0 {
		t.Errorf("progress: %d bytes written, %d read", wrote, read)
	}
	if err := to.Verify(t.Context(), got, nil); err != nil {
		t.Error(err)
	}
	if found, err := to.Lookup(e.Checkpoint.IndexKey()); err != nil || len(found) != 1 {
		t.Errorf("found by its fingerprint: %d, %v", len(found), err)
	}
	// What the digest leaves out.
	var st, other, mapped unix.Stat_t
	for path, into := range map[string]*unix.Stat_t{"diff/var/lib/data": &st, "diff/var/other": &other, "images/pages-mapped-1.img": &mapped} {
		if err := unix.Lstat(filepath.Join(got.Dir, path), into); err != nil {
			t.Fatal(err)
		}
	}
	if st.Ino != other.Ino || st.Mtim != unix.NsecToTimespec(1_700_000_000_123_456_789) {
		t.Errorf("inodes %d and %d, time %v", st.Ino, other.Ino, st.Mtim)
	}
	if mapped.Size != sparseSize || mapped.Blocks*512 > 1<<20 {
		t.Errorf("the page file has %d bytes and takes %d", mapped.Size, mapped.Blocks*512)
	}
	if err := unix.Lstat(filepath.Join(got.Dir, "images/empty.img"), &st); err != nil || st.Uid != 0 || st.Mode&0o077 != 0 {
		t.Errorf("an image has mode %o and belongs to user %d: %v", st.Mode, st.Uid, err)
	}
	// Again is no error, and a taken name is one.
	if _, err := Read(t.Context(), to, bytes.NewReader(stream.Bytes()), Options{}); err != nil {
		t.Error(err)
	}
	if _, err := Read(t.Context(), from, bytes.NewReader(stream.Bytes()), Options{Name: "web"}); !errors.Is(err, checkpoint.ErrExists) {
		t.Errorf("a taken name: %v", err)
	}
}

func TestTruncated(t *testing.T) {
	from, to := newStore(t), newStore(t)
	stream := export(t, from, full(t, from))
	end := len(stream) - 1024 // the end mark; without it the stream is whole
	for at := 0; at < end; at += 1 + end/150 {
		if _, err := Read(t.Context(), to, bytes.NewReader(stream[:at]), Options{}); !errors.Is(err, checkpoint.ErrCorrupt) {
			t.Fatalf("%d of %d bytes: %v", at, end, err)
		}
	}
	nothing(t, to)
}

func TestDamagedAndInterrupted(t *testing.T) {
	from, to := newStore(t), newStore(t)
	e := full(t, from)
	stream := export(t, from, e)
	changed := bytes.Replace(stream, []byte("memorymemory"), []byte("memoryMemory"), 1)
	if _, err := Read(t.Context(), to, bytes.NewReader(changed), Options{}); !errors.Is(err, checkpoint.ErrCorrupt) {
		t.Errorf("changed page: %v", err)
	}
	another := "sha256:" + strings.Repeat("0", 64)
	if _, err := Read(t.Context(), to, bytes.NewReader(stream), Options{Digest: another}); !errors.Is(err, checkpoint.ErrCorrupt) || !strings.Contains(err.Error(), e.Digest) {
		t.Errorf("another digest: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	half := io.MultiReader(bytes.NewReader(stream[:len(stream)/2]), readerFunc(func([]byte) (int, error) { cancel(); return 0, ctx.Err() }))
	if _, err := Read(ctx, to, half, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	if err := Write(ctx, from, e, io.Discard, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted export: %v", err)
	}
	if err := os.Truncate(filepath.Join(e.Dir, "images/pages-1.img"), 5); err != nil {
		t.Fatal(err)
	}
	if err := Write(t.Context(), from, e, io.Discard, nil); !errors.Is(err, checkpoint.ErrCorrupt) {
		t.Errorf("export of a damaged checkpoint: %v", err)
	}
	nothing(t, to)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// TestHostile changes one thing about an honest stream.
func TestHostile(t *testing.T) {
	from := newStore(t)
	honest := export(t, from, full(t, from))
	outside := t.TempDir()
	for name, c := range map[string]struct {
		// change returns what takes the place of an entry.
		change func(h *tar.Header, content []byte) []entry
		says   string
	}{
		"out by dots":        {at("diff/fifo", func(h *tar.Header) { h.Name = "diff/../../../escaped" }), "not plain"},
		"absolute":           {at("diff/fifo", func(h *tar.Header) { h.Name = "/diff/fifo" }), "neither"},
		"beside":             {at("diff/fifo", func(h *tar.Header) { h.Name = "names/x" }), "neither"},
		"through a link":     {after("diff/link", &tar.Header{Typeflag: tar.TypeReg, Name: "diff/link/x"}), "before its directory"},
		"link replaced":      {after("diff/link", &tar.Header{Typeflag: tar.TypeDir, Name: "diff/link/"}), "comes twice"},
		"part replaced":      {at("diff/", func(h *tar.Header) { h.Typeflag, h.Linkname = tar.TypeSymlink, outside }), "no directory"},
		"twice":              {after("images/empty.img", &tar.Header{Typeflag: tar.TypeReg, Name: "images/empty.img"}), "comes twice"},
		"hard link out":      {at("diff/var/other", func(h *tar.Header) { h.Linkname = "../../../etc/shadow" }), "has not come"},
		"hard link to link":  {at("diff/var/other", func(h *tar.Header) { h.Linkname = "diff/later" }), "has not come"},
		"device":             {at("diff/whiteout", func(h *tar.Header) { h.Devmajor, h.Devminor = 8, 1 }), "it is a device"},
		"block device":       {at("diff/whiteout", func(h *tar.Header) { h.Typeflag = tar.TypeBlock }), "it is a device"},
		"image is a link":    {at("images/empty.img", func(h *tar.Header) { h.Typeflag, h.Linkname = tar.TypeSymlink, "x" }), "regular file"},
		"image not listed":   {after("images/empty.img", &tar.Header{Typeflag: tar.TypeReg, Name: "images/z.img"}), "does not list it"},
		"image missing":      {drop("images/empty.img"), "is missing"},
		"image attributes":   {at("images/empty.img", func(h *tar.Header) { h.PAXRecords = map[string]string{"SCHILY.xattr.user.x": "y"} }), "no extended attributes"},
		"holes of GNU tar":   {at("diff/fifo", func(h *tar.Header) { h.PAXRecords = map[string]string{"XXX.sparse.size": "5"} }), "as GNU tar writes"},
		"image directory":    {after("images/", &tar.Header{Typeflag: tar.TypeDir, Name: "images/none/"}), "lists no image in it"},
		"link to an image":   {at("diff/var/other", func(h *tar.Header) { h.Linkname = "images/empty.img" }), "has not come"},
		"more than declared": {after("diff/var/lib/", &tar.Header{Typeflag: tar.TypeReg, Name: "diff/var/lib/more", Size: 9}), "more than the manifest says"},
		"foreign attribute":  {at("diff/fifo", func(h *tar.Header) { h.PAXRecords = map[string]string{"SCHILY.xattr.security.selinux": "y"} }), "belongs to no checkpoint"},
		"size of a link":     {at("diff/link", func(h *tar.Header) { h.PAXRecords = map[string]string{recordSize: "5"} }), recordSize},
		"mode":               {at("diff/var/lib/data", func(h *tar.Header) { h.Mode = 0o777 }), "checkpoint is damaged"},
		"no manifest":        {drop(manifestName), "begins with"},
		"other manifest":     {edit(manifestName, `"schemaVersion": 1`, `"schemaVersion": 7`), "schema 7"},
		"newer manifest":     {edit(manifestName, `"schemaVersion": 1,`, `"schemaVersion": 1, "more": 1,`), "does not know"},
		"not a number":       {at("images/pages-mapped-1.img", func(h *tar.Header) { h.PAXRecords[recordSize] = "-1" }), recordSize},
		"page lost":          {edit("images/pages-mapped-1.img", "pages", "\x00\x00\x00\x00\x00"), "checkpoint is damaged"},
		"page too many":      {edit("images/pages-mapped-1.img", number(sparseSize/2), number(sparseSize/4)+number(block)+strings.Repeat("x", block)+number(sparseSize/2)), "more than the manifest says"},
		"extent outside":     {edit("images/pages-mapped-1.img", number(sparseSize/2), number(sparseSize)), "an extent of"},
		"extent backwards":   {edit("images/pages-mapped-1.img", number(sparseSize/2), number(0)), "an extent of"},
		"extent unaligned":   {edit("images/pages-mapped-1.img", number(sparseSize/2), number(sparseSize/2+1)), "an extent of"},
		"extent negative":    {edit("images/pages-mapped-1.img", number(sparseSize/2), number(-4096)), "an extent of"},
	} {
		t.Run(name, func(t *testing.T) {
			to := newStore(t)
			// Package tar writes no such records.
			stream := bytes.ReplaceAll(rewrite(t, honest, c.change), []byte("XXX.sparse."), []byte("GNU.sparse."))
			_, err := Read(t.Context(), to, bytes.NewReader(stream), Options{})
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want one that says %q", err, c.says)
			}
			nothing(t, to)
			if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
				t.Errorf("outside: %v, %v", left, err)
			}
		})
	}
}

// entry is one of a stream.
type entry struct {
	h       *tar.Header
	content []byte
}

// rewrite writes a stream anew, with what change makes of each entry.
func rewrite(t testing.TB, stream []byte, change func(*tar.Header, []byte) []entry) []byte {
	t.Helper()
	var out bytes.Buffer
	w, r := tar.NewWriter(&out), tar.NewReader(bytes.NewReader(stream))
	changed := false
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		entries := []entry{{h, content}}
		if other := change(h, content); other != nil {
			entries, changed = other, true
		}
		for _, e := range entries {
			if e.h == nil {
				continue
			}
			e.h.Format = tar.FormatPAX
			if err := w.WriteHeader(e.h); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(e.content); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil || !changed {
		t.Fatalf("changed: %t, %v", changed, err)
	}
	return out.Bytes()
}

// at changes the header of one entry.
func at(name string, change func(*tar.Header)) func(*tar.Header, []byte) []entry {
	return func(h *tar.Header, content []byte) []entry {
		if h.Name != name {
			return nil
		}
		change(h)
		if h.Typeflag == tar.TypeSymlink {
			h.Size, content = 0, nil
		}
		return []entry{{h, content}}
	}
}

// after puts an entry after another one.
func after(name string, more *tar.Header) func(*tar.Header, []byte) []entry {
	return func(h *tar.Header, content []byte) []entry {
		if h.Name != name {
			return nil
		}
		return []entry{{h, content}, {more, make([]byte, more.Size)}}
	}
}

func drop(name string) func(*tar.Header, []byte) []entry {
	return func(h *tar.Header, _ []byte) []entry {
		if h.Name != name {
			return nil
		}
		return []entry{{}}
	}
}

// edit replaces something in the content of an entry.
func edit(name, from, to string) func(*tar.Header, []byte) []entry {
	return func(h *tar.Header, content []byte) []entry {
		if h.Name != name {
			return nil
		}
		content = bytes.Replace(content, []byte(from), []byte(to), 1)
		h.Size = int64(len(content))
		return []entry{{h, content}}
	}
}

// number is how a stream holds one.
func number(n int64) string {
	return string(binary.LittleEndian.AppendUint64(nil, uint64(n)))
}

// FuzzUnpack holds that whatever a stream says, nothing is written but below the two
// directories. Each line of the input is an entry: its kind as in tar, its name, what
// it links to or holds, and the size that it claims to have with holes.
func FuzzUnpack(f *testing.F) {
	meta := checkpoint.Checkpoint{Files: []checkpoint.File{{Path: "a.img", Size: 4}}, Diff: checkpoint.Diff{Files: 20, Bytes: 100}}
	f.Add("5 images/\n0 images/a.img data\n5 diff/\n5 diff/d/\n0 diff/d/f data\n1 diff/l diff/d/f\n2 diff/s ../../x\n6 diff/p\n3 diff/w")
	f.Add("5 diff/\n2 diff/s ..\n5 diff/s/\n0 diff/s/x data\n5 diff/../x/\n1 diff/l ../../x")
	f.Add("5 diff/\n0 diff/h \x00\x00\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00data 5000")
	f.Fuzz(func(t *testing.T, script string) {
		var stream bytes.Buffer
		w := tar.NewWriter(&stream)
		for line := range strings.SplitSeq(script, "\n") {
			words := append(strings.Split(line, " "), "", "", "")
			h := &tar.Header{Format: tar.FormatPAX, Name: words[1], Mode: 0o600, PAXRecords: map[string]string{}}
			if words[0] != "" {
				h.Typeflag = words[0][0]
			}
			content := words[2]
			if h.Typeflag != tar.TypeReg {
				h.Linkname, content = words[2], ""
			}
			if h.Size = int64(len(content)); words[3] != "" {
				h.PAXRecords[recordSize] = words[3]
			}
			if w.WriteHeader(h) != nil {
				return
			}
			_, _ = w.Write([]byte(content)) // what is cut off is a case, too
		}
		dir := t.TempDir()
		dirs := map[string]string{imagesName: filepath.Join(dir, "draft", imagesName), diffName: filepath.Join(dir, "draft", diffName)}
		for _, d := range dirs {
			if err := os.MkdirAll(d, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		_ = newUnpacker(t.Context(), &meta, dirs, nil).unpack(tar.NewReader(&stream))
		for path, want := range map[string]int{dir: 1, filepath.Join(dir, "draft"): 2} {
			if found, err := os.ReadDir(path); err != nil || len(found) != want {
				t.Fatalf("%s holds %v (%v)", path, found, err)
			}
		}
	})
}

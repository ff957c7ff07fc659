package mapped

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/containerd-snap/snap/checkpoint/criu/image"
)

// fieldsOf builds a message of varints and bytes by field number.
func fieldsOf(kv ...any) image.Message {
	var b []byte
	for i := 0; i < len(kv); i += 2 {
		num := protowire.Number(kv[i].(int))
		switch v := kv[i+1].(type) {
		case int:
			b = protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), uint64(v))
		case uint64:
			b = protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), v)
		case image.Message:
			b = protowire.AppendBytes(protowire.AppendTag(b, num, protowire.BytesType), v.Encode())
		case string:
			b = protowire.AppendString(protowire.AppendTag(b, num, protowire.BytesType), v)
		}
	}
	m, err := image.Parse(b)
	if err != nil {
		panic(err)
	}
	return m
}

func imageOf(ms ...image.Message) []byte {
	im := image.Image{Magic: []byte("\x19\x43\x56\x54kind")}
	for _, m := range ms {
		im.Records = append(im.Records, m.Encode())
	}
	return im.Encode()
}

// testArea is an area of a test's process.
type testArea struct {
	start  uint64
	pages  int
	status uint64
	flags  uint64
	prot   int
	madv   uint64
	// fill says what each page holds; nil for one that is absent.
	fill func(page int) []byte
}

func anon(start uint64, pages int, fill func(int) []byte) testArea {
	return testArea{start: start, pages: pages, status: statusRegular | statusAnonPrivate, flags: mapPrivate | mapAnonymous, prot: 3, fill: fill}
}

type testProcess struct {
	pid, parent int
	uid         int
	areas       []testArea
}

// text fills a page with a word that says what it is.
func text(format string, args ...any) []byte {
	word := fmt.Sprintf(format, args...) + "|"
	return bytes.Repeat([]byte(word), int(pageSize)/len(word)+1)[:pageSize]
}

// plant writes the images of a tree as CRIU does: to a directory in the copy form.
func plant(t testing.TB, procs ...testProcess) string {
	dir := t.TempDir()
	put := func(name string, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var tree []image.Message
	for _, p := range procs {
		tree = append(tree, fieldsOf(1, p.pid, 2, p.parent, 3, 1, 4, 1, 5, p.pid))
		mm := fieldsOf(1, 1, 12, 1, 13, 7)
		pm := []image.Message{fieldsOf(1, p.pid)}
		var pages []byte
		for _, a := range p.areas {
			mm = append(mm, fieldsOf(14, fieldsOf(vmaStart, a.start, vmaEnd, a.start+uint64(a.pages)*pageSize, vmaOffset, 0, vmaFile, 0,
				vmaProt, a.prot, vmaFlags, a.flags, vmaStatus, a.status, 8, protowire.EncodeZigZag(-1), vmaMadvise, a.madv))...)
			if a.fill == nil {
				continue
			}
			for i := range a.pages {
				page := a.fill(i)
				if page == nil {
					continue
				}
				pages = append(pages, page...)
				pm = append(pm, fieldsOf(1, a.start+uint64(i)*pageSize, 2, 1, 4, 6, 5, 1))
			}
		}
		put(mmName(p.pid), imageOf(mm))
		put(pagemapName(p.pid), imageOf(pm...))
		put(pagesName(uint64(p.pid)), pages)
		put(fmt.Sprintf("core-%d.img", p.pid), imageOf(fieldsOf(1, 1, 3, fieldsOf(1, 1), 5, fieldsOf(10, fieldsOf(1, p.uid)))))
	}
	tree = append(tree, fieldsOf(1, 999, 2, 1, 3, 1, 4, 1)) // a zombie
	put("pstree.img", imageOf(tree...))
	put("files.img", imageOf(fieldsOf(1, 1, 2, 1, 3, fieldsOf(1, 1, 2, 0, 3, 0, 6, "/bin/program")), fieldsOf(1, 3, 2, 9)))
	put("inventory.img", []byte("as it is"))
	return dir
}

// memory is what a restore from dir gives each process, by address: pages that are
// not zero. It follows CRIU's rules, that of inherited areas included.
func memory(t testing.TB, dir string) map[string]string {
	t.Helper()
	procs, err := readTree(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(procs)
	fs, err := readFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, p := range procs {
		for _, a := range p.areas {
			if a.Number(vmaStatus)&statusGuard != 0 {
				continue
			}
			if a.Number(vmaStatus)&statusFilePrivate != 0 {
				readMapped(t, dir, fs, p, a, got)
			}
		}
		for _, r := range p.runs {
			for addr := r.start; addr < r.end() && r.off >= 0; addr += pageSize {
				set(got, p.pid, addr, p.page(addr))
			}
		}
	}
	return got
}

func set(got map[string]string, pid int, addr uint64, page []byte) {
	key := fmt.Sprintf("%d:%x", pid, addr)
	delete(got, key)
	if !isZero(page) {
		got[key] = string(page)
	}
}

func readMapped(t testing.TB, dir string, fs *files, p *process, a *area, got map[string]string) {
	t.Helper()
	key, ours := strings.CutPrefix(fs.names[a.Number(vmaFile)], "/")
	if !ours || !strings.HasPrefix(key, keyPrefix) {
		return // a file of the program's own
	}
	if a.Number(vmaFlags)&mapAnonymous != 0 || a.Number(vmaOffset)%huge != a.start%huge {
		t.Errorf("area %x has flags %x and offset %x", a.start, a.Number(vmaFlags), a.Number(vmaOffset))
	}
	// CRIU takes such areas for one, whatever their offsets.
	if p.parent != nil {
		for _, b := range p.parent.areas {
			if b.start == a.start && b.end == a.end && b.Number(vmaFile) == a.Number(vmaFile) && b.Number(vmaOffset) != a.Number(vmaOffset) {
				t.Errorf("area %x of %d and of its parent map one file at different offsets", a.start, p.pid)
			}
		}
	}
	f, err := os.Open(filepath.Join(dir, FileName(key)))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || uint64(st.Size()) < a.Number(vmaOffset)+a.end-a.start+gap {
		t.Errorf("the page file ends too early: %v", err)
	}
	page := make([]byte, pageSize)
	for addr := a.start; addr < a.end; addr += pageSize {
		if _, err := f.ReadAt(page, int64(a.Number(vmaOffset)+addr-a.start)); err != nil {
			t.Fatal(err)
		}
		set(got, p.pid, addr, page)
	}
}

// all fills each page.
func all(what string) func(int) []byte { return func(i int) []byte { return text("%s %d", what, i) } }

func bigTree() []testProcess {
	const base = uint64(0x7f0000000000)
	stack := testArea{start: 0x7ffc00000000, pages: 8, status: statusRegular | 1<<1 | statusAnonPrivate, flags: mapPrivate | mapAnonymous | 0x100, prot: 3, fill: all("stack")}
	locked, executable, wiped, small := anon(base+1<<30, 128, all("locked")), anon(base+2<<30, 128, all("code")), anon(base+3<<30, 128, all("wiped")), anon(base+4<<30, 8, all("small"))
	locked.flags |= 0x2000
	executable.prot = 7
	wiped.madv = 1 << 18
	guarded := anon(base+5<<30, 128, all("guarded"))
	guard := testArea{start: guarded.start + 4*pageSize, pages: 1, status: statusRegular | statusGuard | statusAnonPrivate, flags: mapPrivate | mapAnonymous}
	sparse := func(i int) []byte {
		switch {
		case i%3 == 0:
			return nil
		case i%5 == 0:
			return zero
		}
		return text("sparse %d", i)
	}
	parent := anon(base+6<<30, 300, all("parent"))
	changed := anon(parent.start, 300, func(i int) []byte {
		switch i {
		case 3:
			return nil // given back: zero in the child
		case 7:
			return zero
		case 50, 51, 299:
			return text("child %d", i)
		}
		return text("parent %d", i)
	})
	heap := anon(0x555500000000, 200, sparse)
	heap.status |= statusHeap
	return []testProcess{
		{1, 0, 0, []testArea{heap, anon(base, 64, all("first")), locked, executable, wiped, small, guarded, parent, stack, guard}},
		{2, 1, 0, []testArea{heap, changed, anon(base+7<<30, 100, all("own")), stack}},
		{3, 2, 0, []testArea{changed, stack}},
		{4, 1, 65534, []testArea{changed, stack}},
		{5, 1, 0, []testArea{anon(parent.start, 300, all("other")), stack}},
		// A part of what its parent has as one.
		{6, 1, 0, []testArea{anon(parent.start+10*pageSize, 100, func(i int) []byte { return parent.fill(i + 10) }), stack}},
	}
}

// TestConvert: the same memory comes out of both forms.
func TestConvert(t *testing.T) {
	src := plant(t, bigTree()...)
	want := memory(t, src)
	dst, back := t.TempDir(), t.TempDir()
	stats, err := Convert(t.Context(), dst, src)
	if err != nil {
		t.Fatal(err)
	}
	// Of 1: heap, first, parent; of 2: heap, changed, own; one each of the others.
	if stats.Areas != 10 {
		t.Errorf("%d areas are mapped", stats.Areas)
	}
	if got := memory(t, dst); !maps.Equal(got, want) {
		t.Fatalf("%d pages of %d, or others", len(got), len(want))
	}
	files, err := OpenFiles(dst)
	if err != nil {
		t.Fatal(err)
	}
	defer CloseFiles(files)
	// 3 and 6 share the file of 1, and 4 must not.
	if len(files) != 4 {
		t.Errorf("%d page files", len(files))
	}
	for _, f := range files {
		if f.Name == "snap-pages-3" || f.Name == "snap-pages-6" {
			t.Errorf("a process has page file %s", f.Name)
		}
	}
	if err := Flatten(t.Context(), back, dst, files); err != nil {
		t.Fatal(err)
	}
	if got := memory(t, back); !maps.Equal(got, want) {
		t.Fatalf("%d pages of %d, or others", len(got), len(want))
	}
	for _, name := range []string{"files.img", "inventory.img", "core-2.img"} {
		a, aerr := os.ReadFile(filepath.Join(src, name))
		b, berr := os.ReadFile(filepath.Join(back, name))
		if err := errors.Join(aerr, berr); err != nil || !bytes.Equal(a, b) {
			t.Errorf("%s is not what it was: %v", name, err)
		}
	}
	if rest, err := Files(back); err != nil || len(rest) != 0 {
		t.Errorf("page files %v are left in the copy form: %v", rest, err)
	}
}

// write makes images in the mapped form those of a task that has written pages since.
func write(t *testing.T, dir string, pid int, pages map[uint64][]byte) {
	t.Helper()
	err := Rewrite(dir, func(dst string) error {
		p, err := readProcess(dir, pid)
		if err != nil {
			return err
		}
		defer p.close()
		w, err := newPageWriter(dst, p.pagemap)
		if err != nil {
			return err
		}
		addrs := slices.Collect(maps.Keys(pages))
		for _, r := range p.runs {
			for addr := r.start; addr < r.end(); addr += pageSize {
				if pages[addr] == nil {
					addrs = append(addrs, addr)
				}
			}
		}
		slices.Sort(addrs)
		for _, addr := range addrs {
			page := pages[addr]
			if page == nil {
				page = p.page(addr)
			}
			if err := w.add(addr, pagePresent, page); err != nil {
				return err
			}
		}
		if err := w.finish(dst); err != nil {
			return err
		}
		return link(dst, dir, map[string]bool{p.name: true, pagesName(p.id): true})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// asDumped opens the page files of images in the mapped form, and names them in the images as
// a dump does. It takes their names in the directory away.
func asDumped(t *testing.T, dir string) []Source {
	t.Helper()
	sources, err := OpenFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { CloseFiles(sources) })
	fs, err := readFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	for n := range sources {
		s := &sources[n]
		for id, name := range fs.names {
			if name == "/"+s.Key {
				s.Name = fmt.Sprintf("file[2a:%x]", id)
				if err := fs.rename(id, s.Name, 1); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if err := os.WriteFile(filepath.Join(dir, filesName), fs.im.Encode(), 0o600); err != nil {
		t.Fatal(err)
	}
	return sources
}

// TestKeep: a task that was restored mapped is captured again. What was hardly written stays
// in the file where it is, the rest is written anew, and the memory is the same.
func TestKeep(t *testing.T) {
	base := t.TempDir()
	if _, err := Convert(t.Context(), base, plant(t, bigTree()...)); err != nil {
		t.Fatal(err)
	}
	// Two pages of an area of 300 of 1, which 3 shares; half of another.
	const first, area = uint64(0x7f0000000000), uint64(0x7f0000000000) + 6<<30
	written := map[uint64][]byte{area: text("new"), area + 9*pageSize: zero}
	for n := range uint64(32) {
		written[first+n*pageSize] = text("half %d", n)
	}
	write(t, base, 1, written)
	want := memory(t, base)

	dump := t.TempDir()
	if err := link(dump, base, nil); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{filesName} { // not to be changed in both
		data, err := os.ReadFile(filepath.Join(base, name))
		if err == nil {
			err = errors.Join(os.Remove(filepath.Join(dump, name)), os.WriteFile(filepath.Join(dump, name), data, 0o600))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	sources := asDumped(t, dump)
	kept := t.TempDir()
	keys, err := Keep(t.Context(), kept, dump, sources)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"snap-pages-1", "snap-pages-2", "snap-pages-4", "snap-pages-5"}; !slices.Equal(keys, want) {
		t.Errorf("%v were kept, want %v", keys, want)
	}
	if got := memory(t, kept); !maps.Equal(got, want) {
		t.Fatalf("%d pages of %d, or others", len(got), len(want))
	}
	// What must be written anew goes to a file of its own.
	again := t.TempDir()
	stats, err := Convert(t.Context(), again, kept)
	if err != nil || stats.Areas != 1 {
		t.Fatalf("%+v, %v", stats, err)
	}
	if got := memory(t, again); !maps.Equal(got, want) {
		t.Fatalf("%d pages of %d, or others", len(got), len(want))
	}
	files, err := Files(again)
	if err != nil || len(files) != 5 || !slices.ContainsFunc(files, func(f File) bool { return f.Key == "snap-pages-1-2" }) {
		t.Errorf("%v, %v", files, err)
	}
	a, aerr := os.Stat(filepath.Join(base, "pages-mapped-1.img"))
	b, berr := os.Stat(filepath.Join(again, "pages-mapped-1.img"))
	if aerr != nil || berr != nil || !os.SameFile(a, b) {
		t.Error("the page file was copied")
	}
	// A file without a name can be read, and not be linked.
	for _, f := range files {
		for _, dir := range []string{base, dump, kept, again} {
			_ = os.Remove(filepath.Join(dir, filepath.Base(f.Path)))
		}
	}
	if _, err := Keep(t.Context(), t.TempDir(), dump, sources); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	flat := t.TempDir()
	if err := Flatten(t.Context(), flat, dump, sources); err != nil {
		t.Fatal(err)
	}
	if got := memory(t, flat); !maps.Equal(got, want) {
		t.Fatalf("%d pages of %d, or others", len(got), len(want))
	}
}

// TestKeepTwisted: CRIU takes areas of two processes with equal bounds and one file for one,
// whatever their offsets. Where these differ, both are written anew.
func TestKeepTwisted(t *testing.T) {
	base := t.TempDir()
	same := func(i int) []byte { return text("same %d", i) }
	stack := anon(0x7ffc00000000, 1, all("stack"))
	if _, err := Convert(t.Context(), base, plant(t,
		testProcess{1, 0, 0, []testArea{anon(0x7f0000000000, 128, same), stack}},
		testProcess{2, 1, 0, []testArea{anon(0x7f0000000000, 128, same), stack}})); err != nil {
		t.Fatal(err)
	}
	p, err := readProcess(base, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	p.areas[0].Set(vmaOffset, p.areas[0].Number(vmaOffset)+pageSize) // as after an mremap
	if err := os.WriteFile(filepath.Join(base, mmName(2)), p.encodeMM(), 0o600); err != nil {
		t.Fatal(err)
	}
	dst := t.TempDir()
	keys, err := Keep(t.Context(), dst, base, asDumped(t, base))
	if err != nil || len(keys) != 0 {
		t.Fatalf("%v, %v", keys, err)
	}
	got := memory(t, dst)
	if at := fmt.Sprintf("%d:%x", 2, 0x7f0000000000); got[at] != string(text("same 1")) {
		t.Errorf("the child's first page is %.20q", got[at])
	}
}

// TestRewrite: in place, and nothing happens if nothing can be done.
func TestRewrite(t *testing.T) {
	dir := plant(t, bigTree()...)
	want := memory(t, dir)
	convert := func(dst string) error { _, err := Convert(t.Context(), dst, dir); return err }
	if err := Rewrite(dir, convert); err != nil {
		t.Fatal(err)
	}
	if files, err := Files(dir); err != nil || len(files) != 4 || !maps.Equal(memory(t, dir), want) {
		t.Errorf("%v, %v", files, err)
	}
	small := plant(t, testProcess{1, 0, 0, []testArea{anon(0x10000, 8, all("small"))}})
	before := memory(t, small)
	if err := Rewrite(small, func(dst string) error { _, err := Convert(t.Context(), dst, small); return err }); !errors.Is(err, ErrNothing) {
		t.Errorf("got %v", err)
	}
	if !maps.Equal(memory(t, small), before) {
		t.Error("the images changed")
	}
	if _, err := os.Stat(filepath.Join(small, ".rewrite")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something is left: %v", err)
	}
}

// TestConvertRefuses: what is not understood stays in the copy form.
func TestConvertRefuses(t *testing.T) {
	for name, change := range map[string]func(dir string){
		"pages in a parent": func(dir string) {
			im, err := image.Read(dir, "pagemap-1.img")
			if err != nil {
				t.Fatal(err)
			}
			im.Records[2] = fieldsOf(1, uint64(0x7f0000001000), 2, 1, 4, 1).Encode()
			_ = os.WriteFile(filepath.Join(dir, "pagemap-1.img"), im.Encode(), 0o600)
		},
		"nothing else": func(string) {},
		"no pages":     func(dir string) { _ = os.Truncate(filepath.Join(dir, "pages-1.img"), 10) },
		"no core":      func(dir string) { _ = os.Remove(filepath.Join(dir, "core-1.img")) },
		"one image for two": func(dir string) {
			_ = os.WriteFile(filepath.Join(dir, "pstree.img"), imageOf(fieldsOf(1, 1), fieldsOf(1, 1)), 0o600)
		},
	} {
		dir := plant(t, testProcess{1, 0, 0, []testArea{anon(0x7f0000000000, 128, all("x"))}})
		change(dir)
		if _, err := Convert(t.Context(), t.TempDir(), dir); !errors.Is(err, image.ErrUnusable) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzConvert: whatever the images hold, the conversion fails or keeps the memory.
func FuzzConvert(f *testing.F) {
	src := plant(f, testProcess{1, 0, 0, []testArea{anon(0x7f0000000000, 70, all("x")), anon(0x7ffc00000000, 1, all("stack"))}})
	names := []string{"pstree.img", "mm-1.img", "pagemap-1.img", "core-1.img", "files.img"}
	var seed [][]byte
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join(src, name))
		if err != nil {
			f.Fatal(err)
		}
		seed = append(seed, data)
	}
	f.Add(seed[0], seed[1], seed[2], seed[3], seed[4])
	f.Add(seed[0], seed[1], binary.LittleEndian.AppendUint32(seed[2][:image.Header:image.Header], 1<<31), seed[3], seed[4])
	pages, err := os.ReadFile(filepath.Join(src, "pages-1.img"))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, a, b, c, d, e []byte) {
		dir, dst, back := t.TempDir(), t.TempDir(), t.TempDir()
		for i, data := range [][]byte{a, b, c, d, e} {
			if err := os.WriteFile(filepath.Join(dir, names[i]), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "pages-1.img"), pages, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Convert(context.Background(), dst, dir); err != nil {
			return
		}
		files, err := OpenFiles(dst)
		if err != nil {
			t.Fatal(err)
		}
		defer CloseFiles(files)
		if err := Flatten(context.Background(), back, dst, files); err != nil {
			t.Fatal(err)
		}
		if !maps.Equal(memory(t, dir), memory(t, back)) {
			t.Fatal("the memory changed")
		}
	})
}

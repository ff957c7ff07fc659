package mapped

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint/criu/image"
)

// Source is a page file that images refer to.
type Source struct {
	// Name is what the images call it, without a slash before it: its key, or the key
	// of an external file in a dump of a task that was restored mapped.
	Name string
	File *os.File
	// Key is the name in images that are at rest.
	Key string
}

// OpenFiles opens the page files in dir, a directory of images in the mapped form.
func OpenFiles(dir string) ([]Source, error) {
	files, err := Files(dir)
	if err != nil {
		return nil, err
	}
	var sources []Source
	for _, file := range files {
		f, _, err := image.Open(file.Path)
		if err != nil {
			CloseFiles(sources)
			return nil, fmt.Errorf("open page file: %w", err)
		}
		sources = append(sources, Source{Name: file.Key, File: f, Key: file.Key})
	}
	return sources, nil
}

// CloseFiles closes the sources' files.
func CloseFiles(sources []Source) {
	for _, s := range sources {
		s.File.Close()
	}
}

// Flatten fills dst, an empty directory on the file system of src, with the copy form of
// the images in src, in which areas map the sources; src stays as it is. What does not
// change is linked.
func Flatten(ctx context.Context, dst, src string, sources []Source) error {
	if _, err := flatten(ctx, dst, src, sources, func(*process, *area, *os.File) bool { return false }); err != nil {
		return fmt.Errorf("bring images to the copy form: %w", err)
	}
	return nil
}

// Keep is Flatten for a dump of a task that was restored mapped, but for areas of which
// the task wrote less than a quarter: these go on mapping their page files, which are
// linked into dst, and only what was written is in the images. It returns the keys of
// these files. A file that was removed meanwhile cannot be linked, which is an error.
func Keep(ctx context.Context, dst, src string, sources []Source) (keys []string, err error) {
	if keys, err = flatten(ctx, dst, src, sources, mostlyClean); err != nil {
		return nil, fmt.Errorf("keep page files in images: %w", err)
	}
	return keys, nil
}

// maxWritten is the part of an area's data that may be written before the area is better
// written anew: a restore copies it, and its old content takes room for nothing.
const maxWritten = 4

// mostlyClean says whether few pages of an area, which maps f, were written.
func mostlyClean(p *process, a *area, f *os.File) bool {
	var written uint64
	for i := p.at(a.start); i < len(p.runs) && p.runs[i].start < a.end; i++ {
		written += min(p.runs[i].end(), a.end) - max(p.runs[i].start, a.start)
	}
	off := int64(a.Number(vmaOffset))
	data, err := dataIn(f, off, off+int64(a.end-a.start))
	return err == nil && int64(written)*maxWritten <= data
}

// flatten brings all areas that map a source to the copy form but those that keep says to
// leave, and returns the keys of the sources which those map.
func flatten(ctx context.Context, dst, src string, sources []Source, keep func(*process, *area, *os.File) bool) ([]string, error) {
	procs, err := readTree(src)
	if err != nil {
		return nil, err
	}
	defer closeAll(procs)
	fs, err := readFiles(src)
	if err != nil {
		return nil, err
	}
	byID := map[uint64]Source{}
	for id, name := range fs.names {
		for _, s := range sources {
			if strings.TrimPrefix(name, "/") == s.Name {
				byID[id] = s
			}
		}
	}
	changed := map[string]bool{filesName: true}
	entries, err := os.ReadDir(src)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if IsPageFile(e.Name()) {
			changed[e.Name()] = true
		}
	}
	kept := map[uint64]bool{}
	twisted := twistedAreas(procs, byID)
	for _, p := range procs {
		files := map[*area]*os.File{}
		for _, a := range p.areas {
			id := a.Number(vmaFile)
			s, ok := byID[id]
			switch {
			case !ok || a.Number(vmaStatus)&statusFilePrivate == 0:
			case !twisted[areaKey{a.start, a.end, id}] && keep(p, a, s.File):
				kept[id] = true
			default:
				files[a] = s.File
			}
		}
		if len(files) == 0 {
			continue
		}
		if err := flattenProcess(ctx, dst, p, files); err != nil {
			return nil, err
		}
		changed[mmName(p.pid)], changed[p.name], changed[pagesName(p.id)] = true, true, true
	}
	keys, err := settleFiles(dst, fs, byID, kept)
	if err != nil {
		return nil, err
	}
	return keys, link(dst, src, changed)
}

// areaKey is what CRIU recognises an area by that two processes share.
type areaKey struct{ start, end, file uint64 }

// twistedAreas are those that CRIU would take for shared though they map their file at
// different offsets, which it does not compare: a process moved one of them.
func twistedAreas(procs []*process, byID map[uint64]Source) map[areaKey]bool {
	offsets, twisted := map[areaKey]uint64{}, map[areaKey]bool{}
	for _, p := range procs {
		for _, a := range p.areas {
			id := a.Number(vmaFile)
			if _, ok := byID[id]; !ok || a.Number(vmaStatus)&statusFilePrivate == 0 {
				continue
			}
			k, off := areaKey{a.start, a.end, id}, a.Number(vmaOffset)
			if before, ok := offsets[k]; ok && before != off {
				twisted[k] = true
			}
			offsets[k] = off
		}
	}
	return twisted
}

// settleFiles writes files.img to dst, without the sources that no area maps any more. Those
// which are kept get the name that they have at rest, and are linked.
func settleFiles(dst string, fs *files, byID map[uint64]Source, kept map[uint64]bool) ([]string, error) {
	gone := map[uint64]bool{}
	var keys []string
	for id, s := range byID {
		if !kept[id] {
			gone[id] = true
			continue
		}
		st, err := s.File.Stat()
		if err != nil {
			return nil, err
		}
		if err := fs.rename(id, "/"+s.Key, st.Size()); err != nil {
			return nil, err
		}
		if slices.Contains(keys, s.Key) {
			continue
		}
		keys = append(keys, s.Key)
		from := fmt.Sprintf("/proc/self/fd/%d", s.File.Fd())
		if err := unix.Linkat(unix.AT_FDCWD, from, unix.AT_FDCWD, filepath.Join(dst, FileName(s.Key)), unix.AT_SYMLINK_FOLLOW); err != nil {
			return nil, fmt.Errorf("link page file %s: %w", s.File.Name(), err)
		}
	}
	if err := fs.remove(gone); err != nil {
		return nil, err
	}
	slices.Sort(keys)
	return keys, writeFile(filepath.Join(dst, filesName), fs.im.Encode())
}

func flattenProcess(ctx context.Context, dst string, p *process, files map[*area]*os.File) error {
	w, err := newPageWriter(dst, p.pagemap)
	if err != nil {
		return err
	}
	if err := flattenPages(ctx, w, p, files); err != nil {
		w.file.Close()
		return err
	}
	if err := w.finish(dst); err != nil {
		return err
	}
	for a := range files {
		a.Set(vmaStatus, a.Number(vmaStatus)&^statusFilePrivate|statusAnonPrivate)
		a.Set(vmaFlags, a.Number(vmaFlags)|mapAnonymous)
		a.Set(vmaFile, 0)
		a.Set(vmaOffset, 0)
	}
	return writeFile(filepath.Join(dst, mmName(p.pid)), p.encodeMM())
}

// flattenPages writes all pages of p: those of its pages image, and between them, in the
// areas that map one, those of the file.
func flattenPages(ctx context.Context, w *pageWriter, p *process, files map[*area]*os.File) error {
	mapped := slices.SortedFunc(maps.Keys(files), func(a, b *area) int { return cmp.Compare(a.start, b.start) })
	next := uint64(0)
	for _, r := range append(slices.Clip(p.runs), run{start: lastPage}) {
		if err := ctx.Err(); err != nil {
			return err
		}
		for _, a := range mapped {
			from, to := max(a.start, next), min(a.end, r.start)
			if from >= to {
				continue
			}
			shift := a.Number(vmaOffset) - a.start
			err := eachData(files[a], int64(from+shift), int64(to+shift), func(off int64, page []byte) error {
				// As CRIU marks the pages of such areas: a pager may deliver them.
				return w.add(uint64(off)-shift, pagePresent|pageLazy, page)
			})
			if err != nil {
				return err
			}
		}
		if err := w.addRun(p.pagemap, r, r.start, r.end()); err != nil {
			return err
		}
		next = r.end()
	}
	return nil
}

// lastPage is above all that a process can have.
const lastPage = 1<<64 - 1<<20

// eachExtent visits the parts of f between two offsets that are no holes.
func eachExtent(f *os.File, off, end int64, visit func(from, to int64) error) error {
	for off < end {
		data, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) || err == nil && data >= end {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", f.Name(), err)
		}
		hole, err := unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE)
		if err != nil {
			return fmt.Errorf("read %s: %w", f.Name(), err)
		}
		// Whole pages, whatever the file system's blocks are.
		from := max(off, data/int64(pageSize)*int64(pageSize))
		to := min(end, (hole+int64(pageSize)-1)/int64(pageSize)*int64(pageSize))
		if err := visit(from, to); err != nil {
			return err
		}
		off = to
	}
	return nil
}

// dataIn is how much of f between two offsets is no hole.
func dataIn(f *os.File, off, end int64) (n int64, err error) {
	err = eachExtent(f, off, end, func(from, to int64) error {
		n += to - from
		return nil
	})
	return n, err
}

// eachData visits the pages of f between two offsets that are not zero.
func eachData(f *os.File, off, end int64, visit func(off int64, page []byte) error) error {
	buf := make([]byte, chunk)
	return eachExtent(f, off, end, func(from, to int64) error {
		for ; from < to; from += chunk {
			part := buf[:min(chunk, to-from)]
			read, err := f.ReadAt(part, from)
			if err != nil && !errors.Is(err, io.EOF) {
				return fmt.Errorf("read %s: %w", f.Name(), err)
			}
			clear(part[read:])
			for at := 0; at < len(part); at += int(pageSize) {
				page := part[at : at+int(pageSize)]
				if isZero(page) {
					continue
				}
				if err := visit(from+int64(at), page); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

package mapped

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Source is a page file that images refer to.
type Source struct {
	// Name is what the images call it, without a slash before it: a File's Key, or the key
	// of an external file in a dump of a task that was restored mapped.
	Name string
	File *os.File
}

// OpenFiles opens the page files in dir, a directory of images in the mapped form.
func OpenFiles(dir string) ([]Source, error) {
	files, err := Files(dir)
	if err != nil {
		return nil, err
	}
	var sources []Source
	for _, file := range files {
		f, _, err := openRegular(file.Path)
		if err != nil {
			CloseFiles(sources)
			return nil, fmt.Errorf("open page file: %w", err)
		}
		sources = append(sources, Source{Name: file.Key, File: f})
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
	if err := flatten(ctx, dst, src, sources); err != nil {
		return fmt.Errorf("bring images to the copy form: %w", err)
	}
	return nil
}

func flatten(ctx context.Context, dst, src string, sources []Source) error {
	procs, err := readTree(src)
	if err != nil {
		return err
	}
	defer closeAll(procs)
	fs, err := readFiles(src)
	if err != nil {
		return err
	}
	byID := map[uint64]*os.File{}
	gone := map[uint64]bool{}
	for id, name := range fs.names {
		for _, s := range sources {
			if strings.TrimPrefix(name, "/") == s.Name {
				byID[id], gone[id] = s.File, true
			}
		}
	}
	changed := map[string]bool{filesName: true}
	entries, err := os.ReadDir(src)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if IsPageFile(e.Name()) {
			changed[e.Name()] = true
		}
	}
	for _, p := range procs {
		var mapped []*area
		for _, a := range p.areas {
			if a.number(vmaStatus)&statusFilePrivate != 0 && byID[a.number(vmaFile)] != nil {
				mapped = append(mapped, a)
			}
		}
		if len(mapped) == 0 {
			continue
		}
		if err := flattenProcess(ctx, dst, p, mapped, byID); err != nil {
			return err
		}
		changed[mmName(p.pid)], changed[p.name], changed[pagesName(p.id)] = true, true, true
	}
	if err := fs.remove(gone); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dst, filesName), fs.im.encode()); err != nil {
		return err
	}
	return link(dst, src, changed)
}

func flattenProcess(ctx context.Context, dst string, p *process, mapped []*area, files map[uint64]*os.File) error {
	w, err := newPageWriter(dst, p.pagemap)
	if err != nil {
		return err
	}
	if err := flattenPages(ctx, w, p, mapped, files); err != nil {
		w.file.Close()
		return err
	}
	if err := w.finish(dst); err != nil {
		return err
	}
	for _, a := range mapped {
		a.set(vmaStatus, a.number(vmaStatus)&^statusFilePrivate|statusAnonPrivate)
		a.set(vmaFlags, a.number(vmaFlags)|mapAnonymous)
		a.set(vmaFile, 0)
		a.set(vmaOffset, 0)
	}
	return writeFile(filepath.Join(dst, mmName(p.pid)), p.encodeMM())
}

// flattenPages writes all pages of p: those of its pages image, and between them, in the
// mapped areas, those of the file.
func flattenPages(ctx context.Context, w *pageWriter, p *process, mapped []*area, files map[uint64]*os.File) error {
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
			shift := a.number(vmaOffset) - a.start
			err := eachData(files[a.number(vmaFile)], int64(from+shift), int64(to+shift), func(off int64, page []byte) error {
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

// eachData visits the pages of f between two offsets that are not zero.
func eachData(f *os.File, off, end int64, visit func(off int64, page []byte) error) error {
	buf := make([]byte, chunk)
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
		off = max(off, data/int64(pageSize)*int64(pageSize))
		for off < min(hole, end) {
			n := min(chunk, end-off)
			read, err := f.ReadAt(buf[:n], off)
			if err != nil && !errors.Is(err, io.EOF) {
				return fmt.Errorf("read %s: %w", f.Name(), err)
			}
			clear(buf[read:n])
			for at := int64(0); at < n; at += int64(pageSize) {
				page := buf[at : at+int64(pageSize)]
				if isZero(page) {
					continue
				}
				if err := visit(off+at, page); err != nil {
					return err
				}
			}
			off += n
		}
	}
	return nil
}

package mapped

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint/criu/image"
)

const (
	// minPages is how many pages an area must hold for its conversion to pay: the
	// copy of fewer takes less time than the kernel needs for the mapping.
	minPages = 64
	// maxSparse bounds the length of an area by that of the pages that it holds, so that
	// no file gets long for nothing.
	maxSparse = 64
	// gap is the hole behind the data of a page file; see the package comment.
	gap = 1 << 40
	// huge is the size of a huge page, for which offsets are aligned.
	huge = 2 << 20
)

// Stats says what a conversion did.
type Stats struct {
	// Areas is the number of areas that map a page file, Bytes the data in the files.
	Areas int
	Bytes int64
}

// ErrNothing is returned for images in which no area is large enough.
var ErrNothing = errors.New("no memory area is large enough to be mapped")

// place is where an area lies in a page file.
type place struct {
	owner *process
	off   uint64
}

// converter makes the mapped form.
type converter struct {
	src, dst string
	files    *files
	procs    []*process
	// places are where the areas of each process that map a file have it.
	places map[*process]map[*area]place
	// numbers are those of the page files in files.img.
	numbers map[*process]uint64
	stats   Stats
}

// Convert fills dst, an empty directory on the file system of src, with the mapped
// form of the images in src, which stay as they are: in the copy form, or mapped where Keep
// has left them so. What does not change is linked.
func Convert(ctx context.Context, dst, src string) (Stats, error) {
	s, err := convert(ctx, dst, src)
	if err != nil {
		return Stats{}, fmt.Errorf("convert images to the mapped form: %w", err)
	}
	return s, nil
}

func convert(ctx context.Context, dst, src string) (Stats, error) {
	procs, err := readTree(src)
	if err != nil {
		return Stats{}, err
	}
	defer closeAll(procs)
	c := &converter{src: src, dst: dst, procs: procs, places: map[*process]map[*area]place{}, numbers: map[*process]uint64{}}
	if c.files, err = readFiles(src); err != nil {
		return Stats{}, err
	}
	for _, p := range procs {
		if err := c.choose(ctx, p); err != nil {
			return Stats{}, err
		}
	}
	if c.stats.Areas == 0 {
		return Stats{}, ErrNothing
	}
	changed := map[string]bool{filesName: true}
	for _, p := range procs {
		if len(c.places[p]) == 0 {
			continue
		}
		if err := c.rewrite(p); err != nil {
			return Stats{}, err
		}
		changed[mmName(p.pid)], changed[p.name], changed[pagesName(p.id)] = true, true, true
	}
	if err := writeFile(filepath.Join(dst, filesName), c.files.im.Encode()); err != nil {
		return Stats{}, err
	}
	return c.stats, link(dst, src, changed)
}

// choose decides which areas of p map a file, and writes its page file. Parents
// come before children.
func (c *converter) choose(ctx context.Context, p *process) error {
	places := map[*area]place{}
	var own []*area
	for _, a := range p.areas {
		if !a.eligible() || p.guarded(a) {
			continue
		}
		present := uint64(0)
		for i := p.at(a.start); i < len(p.runs) && p.runs[i].start < a.end; i++ {
			r := p.runs[i]
			if r.flags&pageParent != 0 {
				return image.Unusable(p.name, errors.New("pages are in other images"))
			}
			if r.off >= 0 {
				present += (min(r.end(), a.end) - max(r.start, a.start)) / pageSize
			}
		}
		if present < minPages || (a.end-a.start)/pageSize > present*maxSparse {
			continue
		}
		if from, ok := c.inherited(p, a, present); ok {
			places[a] = from
			continue
		}
		own = append(own, a)
	}
	if err := c.writePages(ctx, p, own, places); err != nil {
		return err
	}
	c.places[p] = places
	c.stats.Areas += len(places)
	return nil
}

// inherited says whether p has the area from its parent, and still most of its pages.
func (c *converter) inherited(p *process, a *area, present uint64) (place, bool) {
	if p.parent == nil || p.parent.program != p.program || p.parent.rights != p.rights {
		return place{}, false
	}
	for pa, from := range c.places[p.parent] {
		if a.start < pa.start || a.end > pa.end {
			continue
		}
		from.off += a.start - pa.start
		differ := uint64(0)
		for addr := a.start; addr < a.end; addr += pageSize {
			if !equal(p.page(addr), from.owner.page(addr)) {
				differ++
			}
		}
		return from, differ*2 < present
	}
	return place{}, false
}

var zero = make([]byte, pageSize)

func isZero(page []byte) bool { return page == nil || bytes.Equal(page, zero) }

// equal compares two pages of which either may be missing, and then is zero.
func equal(a, b []byte) bool {
	switch {
	case a == nil:
		return isZero(b)
	case b == nil:
		return isZero(a)
	}
	return bytes.Equal(a, b)
}

// pageFileName is a name for p's page file that is free: page files of earlier images, which
// these refer to, keep theirs.
func (c *converter) pageFileName(p *process) (string, error) {
	for n := 1; ; n++ {
		key := keyPrefix + strconv.Itoa(p.pid)
		if n > 1 {
			key += "-" + strconv.Itoa(n)
		}
		name := FileName(key)
		_, err := os.Lstat(filepath.Join(c.src, name))
		if errors.Is(err, os.ErrNotExist) {
			return name, nil
		}
		if err != nil {
			return "", err
		}
	}
}

// writePages writes the areas to p's page file, if there are any, and notes their places.
func (c *converter) writePages(ctx context.Context, p *process, areas []*area, places map[*area]place) (err error) {
	if len(areas) == 0 {
		return nil
	}
	name, err := c.pageFileName(p)
	if err != nil {
		return err
	}
	f, err := create(filepath.Join(c.dst, name))
	if err != nil {
		return err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	var end uint64
	for _, a := range areas {
		// The next offset that is the address modulo the size of a huge page.
		off := end + (a.start-end)%huge
		if err := c.writeArea(ctx, f, p, a, off); err != nil {
			return err
		}
		places[a] = place{owner: p, off: off}
		end = off + a.end - a.start
	}
	if err := f.Truncate(int64(end + gap)); err != nil {
		return fmt.Errorf("the file system cannot hold a sparse file of %d bytes: %w", end+gap, err)
	}
	if _, err := unix.Seek(int(f.Fd()), int64(end), unix.SEEK_DATA); !errors.Is(err, unix.ENXIO) {
		return errors.New("the file system does not tell where a file has holes")
	}
	c.numbers[p] = c.files.add("/"+fileKey(name), int64(end+gap))
	return nil
}

// writeArea writes the pages of an area that are not zero to f at off, neighbours at once.
func (c *converter) writeArea(ctx context.Context, f *os.File, p *process, a *area, off uint64) error {
	for i := p.at(a.start); i < len(p.runs) && p.runs[i].start < a.end; i++ {
		r := p.runs[i]
		if r.off < 0 {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		from, to := max(a.start, r.start), min(a.end, r.end())
		data := p.data[uint64(r.off)+from-r.start:][:to-from]
		at := int64(off + from - a.start)
		for len(data) > 0 {
			part := data[:min(uint64(len(data)), writeback)]
			if err := writeSparse(f, part, at, &c.stats.Bytes); err != nil {
				return err
			}
			// Only a hint: the disk works while we do.
			_ = unix.SyncFileRange(int(f.Fd()), at, int64(len(part)), unix.SYNC_FILE_RANGE_WRITE)
			data, at = data[len(part):], at+int64(len(part))
		}
	}
	return nil
}

const (
	// chunk is how much is written at once.
	chunk = 1 << 20
	// writeback is after how much the disk is told to begin, in bytes.
	writeback = 16 << 20
)

// writeSparse writes data to f at off and leaves out pages that are zero.
func writeSparse(f *os.File, data []byte, off int64, written *int64) error {
	flush := func(from, to uint64) error {
		if from == to {
			return nil
		}
		n, err := f.WriteAt(data[from:to], off+int64(from))
		*written += int64(n)
		return err
	}
	var from uint64
	n := uint64(len(data))
	for at := uint64(0); at < n; at += pageSize {
		switch {
		case isZero(data[at : at+pageSize]):
			if err := flush(from, at); err != nil {
				return err
			}
			from = at + pageSize
		case at-from >= chunk:
			if err := flush(from, at); err != nil {
				return err
			}
			from = at
		}
	}
	return flush(from, n)
}

// rewrite writes p's images with its areas mapped.
func (c *converter) rewrite(p *process) error {
	w, err := newPageWriter(c.dst, p.pagemap)
	if err != nil {
		return err
	}
	if err := c.keepPages(p, w); err != nil {
		w.file.Close()
		return err
	}
	if len(w.runs) == 0 {
		w.file.Close()
		// CRIU does not expect it, and there always is a stack.
		return image.Unusable(p.name, errors.New("no page but those of large areas"))
	}
	if err := w.finish(c.dst); err != nil {
		return err
	}
	for a, at := range c.places[p] {
		a.Set(vmaStatus, a.Number(vmaStatus)&^statusAnonPrivate|statusFilePrivate)
		a.Set(vmaFlags, a.Number(vmaFlags)&^mapAnonymous)
		a.Set(vmaFile, c.numbers[at.owner])
		a.Set(vmaOffset, at.off)
		a.Set(vmaOpenFlags, 0) // O_RDONLY
	}
	return writeFile(filepath.Join(c.dst, mmName(p.pid)), p.encodeMM())
}

// keepPages copies the pages that stay in p's pages image: those outside of areas that
// map a file, and those that differ from the file.
func (c *converter) keepPages(p *process, w *pageWriter) error {
	mapped := c.places[p]
	next := uint64(0)
	outside := func(end uint64) error {
		for i := p.at(next); i < len(p.runs) && p.runs[i].start < end; i++ {
			r := p.runs[i]
			if err := w.addRun(p.pagemap, r, max(next, r.start), min(end, r.end())); err != nil {
				return err
			}
		}
		return nil
	}
	for _, a := range p.areas {
		at, ok := mapped[a]
		if !ok {
			continue
		}
		if err := outside(a.start); err != nil {
			return err
		}
		next = a.end
		if at.owner == p {
			continue
		}
		for addr := a.start; addr < a.end; addr += pageSize {
			page := p.page(addr)
			if equal(page, at.owner.page(addr)) {
				continue
			}
			if page == nil {
				page = zero
			}
			if err := w.add(addr, pagePresent, page); err != nil {
				return err
			}
		}
	}
	return outside(1<<64 - 1)
}

// link links the files of src that have not changed into dst.
func link(dst, src string, changed map[string]bool) error {
	entries, err := os.ReadDir(src)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if changed[e.Name()] || e.IsDir() {
			continue
		}
		if err := os.Link(filepath.Join(src, e.Name()), filepath.Join(dst, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

package mapped

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"sort"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint/criu/image"
)

// Flags of a pagemap_entry (criu/include/image.h).
const (
	pageParent  = 1 << 0
	pageLazy    = 1 << 1
	pagePresent = 1 << 2
)

// pageSize is the size of the pages in the images, which is this node's.
var pageSize = uint64(os.Getpagesize())

// maxPages bounds the pages of one run, so that sums cannot overflow.
const maxPages = 1 << 40

// run is a pagemap_entry: pages with addresses in a row.
type run struct {
	start, pages, flags uint64
	// off is where they begin in the pages image; -1 if they are not there.
	off int64
}

func (r run) end() uint64 { return r.start + r.pages*pageSize }

// pagemap says which pages of a process its pages image holds.
type pagemap struct {
	name string
	im   *image.Image
	// id is the number of the pages image.
	id   uint64
	runs []run
	// wide says that entries have the 64-bit count, too.
	wide bool
	// data is the pages image, mapped; nil if it is empty.
	data []byte
}

func pagesName(id uint64) string { return fmt.Sprintf("pages-%d.img", id) }

// readPagemap reads the pagemap image called name and maps its pages image.
func readPagemap(dir, name string) (*pagemap, error) {
	im, err := image.Read(dir, name)
	if err != nil {
		return nil, err
	}
	pm := &pagemap{name: name, im: im}
	size, err := pm.parse()
	if err != nil {
		return nil, image.Unusable(name, err)
	}
	if size == 0 {
		return pm, nil
	}
	f, have, err := image.Open(filepath.Join(dir, pagesName(pm.id)))
	if err != nil {
		return nil, image.Unusable(pagesName(pm.id), err)
	}
	defer f.Close()
	if have < size {
		return nil, image.Unusable(pagesName(pm.id), fmt.Errorf("%w: %d bytes of %d", image.ErrTruncated, have, size))
	}
	if pm.data, err = unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_PRIVATE); err != nil {
		return nil, fmt.Errorf("map %s: %w", f.Name(), err)
	}
	return pm, nil
}

// parse reads a pagemap_head and pagemap_entry messages (images/pagemap.proto),
// and returns how long the pages image must be.
func (pm *pagemap) parse() (size int64, err error) {
	head, err := image.Parse(pm.im.Records[0])
	if err != nil {
		return 0, err
	}
	pm.id = head.Number(1)
	for _, rec := range pm.im.Records[1:] {
		m, err := image.Parse(rec)
		if err != nil {
			return 0, err
		}
		r := run{start: m.Number(1), pages: m.Number(2), flags: m.Number(4), off: -1}
		if n := m.Find(5); n != nil {
			r.pages, pm.wide = n.Value, true
		}
		if m.Find(4) == nil {
			// Before there were flags, what was not in the parent was present.
			r.flags = pagePresent
			if m.Number(3) != 0 {
				r.flags = pageParent
			}
		}
		var last uint64
		if n := len(pm.runs); n > 0 {
			last = pm.runs[n-1].end()
		}
		if r.pages == 0 || r.pages > maxPages || r.start%pageSize != 0 || r.start < last || r.end() < r.start {
			return 0, fmt.Errorf("%d pages at %#x cannot be", r.pages, r.start)
		}
		if r.flags&(pagePresent|pageParent) == pagePresent {
			r.off = size
			size += int64(r.pages * pageSize)
		}
		if size > maxPages {
			return 0, fmt.Errorf("%d bytes of pages cannot be", size)
		}
		pm.runs = append(pm.runs, r)
	}
	return size, nil
}

func (pm *pagemap) close() {
	if pm.data != nil {
		_ = unix.Munmap(pm.data)
		pm.data = nil
	}
}

// at returns the index of the first run that ends behind addr.
func (pm *pagemap) at(addr uint64) int {
	return sort.Search(len(pm.runs), func(i int) bool { return pm.runs[i].end() > addr })
}

// page returns the page at addr; nil if the images hold none, which then is zero.
func (pm *pagemap) page(addr uint64) []byte {
	i := pm.at(addr)
	if i == len(pm.runs) || pm.runs[i].start > addr || pm.runs[i].off < 0 {
		return nil
	}
	off := uint64(pm.runs[i].off) + addr - pm.runs[i].start
	return pm.data[off : off+pageSize]
}

// pageWriter writes a pagemap image and its pages image, pages in the order of
// their addresses.
type pageWriter struct {
	pm   *pagemap
	runs []run
	file *os.File
	buf  *bufio.Writer
}

func newPageWriter(dir string, pm *pagemap) (*pageWriter, error) {
	f, err := create(filepath.Join(dir, pagesName(pm.id)))
	if err != nil {
		return nil, err
	}
	return &pageWriter{pm: pm, file: f, buf: bufio.NewWriterSize(f, 1<<20)}, nil
}

// add appends a page.
func (w *pageWriter) add(addr, flags uint64, page []byte) error {
	w.extend(addr, 1, flags)
	_, err := w.buf.Write(page)
	return err
}

// addRun appends what lies of a run between two addresses, with its pages if it has any.
func (w *pageWriter) addRun(pm *pagemap, r run, from, to uint64) error {
	if from >= to {
		return nil
	}
	w.extend(from, (to-from)/pageSize, r.flags)
	if r.off < 0 {
		return nil
	}
	off := uint64(r.off) + from - r.start
	_, err := w.buf.Write(pm.data[off : off+to-from])
	return err
}

func (w *pageWriter) extend(addr, pages, flags uint64) {
	if n := len(w.runs); n > 0 && w.runs[n-1].end() == addr && w.runs[n-1].flags == flags {
		w.runs[n-1].pages += pages
		return
	}
	w.runs = append(w.runs, run{start: addr, pages: pages, flags: flags})
}

// finish writes what remains.
func (w *pageWriter) finish(dir string) error {
	err := w.buf.Flush()
	if cerr := w.file.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	im := &image.Image{Magic: w.pm.im.Magic, Records: w.pm.im.Records[:1:1]}
	for _, r := range w.runs {
		var m image.Message
		m.Set(1, r.start)
		m.Set(2, r.pages)
		m.Set(4, r.flags)
		if w.pm.wide {
			m.Set(5, r.pages)
		}
		im.Records = append(im.Records, m.Encode())
	}
	return writeFile(filepath.Join(dir, w.pm.name), im.Encode())
}

func create(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
}

func writeFile(path string, data []byte) error {
	f, err := create(path)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

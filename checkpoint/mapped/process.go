package mapped

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/containerd-snap/snap/checkpoint/criu/image"
)

// Bits of a vma_entry's status and flags (criu/include/image.h, mman.h).
const (
	statusRegular     = 1 << 0
	statusHeap        = 1 << 5
	statusFilePrivate = 1 << 6
	statusAnonPrivate = 1 << 9
	statusGuard       = 1 << 16

	mapPrivate   = 0x02
	mapAnonymous = 0x20
	mapNoReserve = 0x4000
	mapStack     = 0x20000
	protExec     = 0x4
)

// Numbers of a vma_entry's fields (images/vma.proto), of that of an mm_entry
// that holds them, and of the mm_entry's file of the program.
const (
	vmaStart, vmaEnd, vmaOffset, vmaFile, vmaProt, vmaFlags, vmaStatus = 1, 2, 3, 4, 5, 6, 7

	vmaMadvise, vmaOpenFlags = 9, 10
	mmVMA, mmProgram         = 14, 12
)

// benign are those of a vma_entry's advices, as bits, that mean the same for a mapped
// file: MADV_DONTFORK, MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_DONTDUMP.
const benign = 1<<10 | 1<<14 | 1<<15 | 1<<16

// area is a memory area of a process: a vma_entry.
type area struct {
	image.Message
	// field is its index among the fields of the mm_entry.
	field      int
	start, end uint64
}

// eligible says whether the area may be a private mapping of a file.
func (a *area) eligible() bool {
	status := a.Number(vmaStatus) &^ statusHeap
	flags := a.Number(vmaFlags) &^ (mapNoReserve | mapStack)
	return status == statusRegular|statusAnonPrivate && flags == mapPrivate|mapAnonymous &&
		a.Number(vmaProt)&protExec == 0 && a.Number(vmaMadvise)&^benign == 0
}

// process is what the images say of the memory of a process.
type process struct {
	pid    int
	parent *process
	mm     *image.Image
	fields image.Message
	areas  []*area
	*pagemap
	// program is the number of its executable file, rights what it may do: of
	// processes that share memory, both are equal.
	program uint64
	rights  string
}

// readTree reads the processes that have memory, parents before children.
func readTree(dir string) (_ []*process, err error) {
	im, err := image.Read(dir, "pstree.img")
	if err != nil {
		return nil, err
	}
	var ps []*process
	defer func() {
		if err != nil {
			closeAll(ps)
		}
	}()
	byPID := map[uint64]*process{}
	ids := map[uint64]bool{}
	for _, rec := range im.Records {
		m, err := image.Parse(rec)
		if err != nil {
			return nil, image.Unusable("pstree.img", err)
		}
		pid := m.Number(1)
		if pid == 0 || pid > 1<<22 {
			return nil, image.Unusable("pstree.img", fmt.Errorf("process id %d cannot be", pid))
		}
		if _, err := os.Lstat(filepath.Join(dir, mmName(int(pid)))); errors.Is(err, os.ErrNotExist) {
			continue // a zombie
		}
		p, err := readProcess(dir, int(pid))
		if err != nil {
			return nil, err
		}
		ps = append(ps, p)
		if ids[p.id] {
			return nil, image.Unusable(p.name, fmt.Errorf("its pages image %d is that of another process, too", p.id))
		}
		ids[p.id] = true
		p.parent = byPID[m.Number(2)]
		byPID[pid] = p
	}
	return ps, nil
}

func closeAll(ps []*process) {
	for _, p := range ps {
		p.close()
	}
}

func mmName(pid int) string      { return "mm-" + strconv.Itoa(pid) + ".img" }
func pagemapName(pid int) string { return "pagemap-" + strconv.Itoa(pid) + ".img" }

func readProcess(dir string, pid int) (*process, error) {
	p := &process{pid: pid}
	var err error
	if p.mm, err = image.Read(dir, mmName(pid)); err != nil {
		return nil, err
	}
	if err := p.parseAreas(); err != nil {
		return nil, image.Unusable(mmName(pid), err)
	}
	core := "core-" + strconv.Itoa(pid) + ".img"
	im, err := image.Read(dir, core)
	if err != nil {
		return nil, err
	}
	if p.rights, err = parseRights(im.Records[0]); err != nil {
		return nil, image.Unusable(core, err)
	}
	p.pagemap, err = readPagemap(dir, pagemapName(pid))
	return p, err
}

// parseAreas reads an mm_entry (images/mm.proto).
func (p *process) parseAreas() (err error) {
	if p.fields, err = image.Parse(p.mm.Records[0]); err != nil {
		return err
	}
	p.program = p.fields.Number(mmProgram)
	var last uint64
	for i, f := range p.fields {
		if f.Num != mmVMA {
			continue
		}
		m, err := image.Parse(f.Bytes)
		if err != nil {
			return err
		}
		a := &area{Message: m, field: i, start: m.Number(vmaStart), end: m.Number(vmaEnd)}
		if a.start >= a.end || a.start%pageSize != 0 || a.end%pageSize != 0 {
			return fmt.Errorf("area %#x-%#x cannot be", a.start, a.end)
		}
		// What comes behind the areas are guards within them.
		if m.Number(vmaStatus)&statusGuard == 0 {
			if a.start < last {
				return fmt.Errorf("area %#x-%#x is out of order", a.start, a.end)
			}
			last = a.end
		}
		p.areas = append(p.areas, a)
	}
	return nil
}

// guarded says whether a guard lies in the area.
func (p *process) guarded(a *area) bool {
	for _, g := range p.areas {
		if g.Number(vmaStatus)&statusGuard != 0 && g.start < a.end && a.start < g.end {
			return true
		}
	}
	return false
}

// encodeMM is the mm image with the areas as they are now.
func (p *process) encodeMM() []byte {
	for _, a := range p.areas {
		p.fields[a.field].Bytes = a.Message.Encode()
	}
	im := image.Image{Magic: p.mm.Magic, Records: [][]byte{p.fields.Encode()}}
	return im.Encode()
}

// parseRights returns what of a core_entry (images/core.proto) says what the process may
// do: its credentials and its seccomp filters.
func parseRights(rec []byte) (string, error) {
	core, err := image.Parse(rec)
	if err != nil {
		return "", err
	}
	task, err := image.Parse(core.Text(3))
	if err != nil {
		return "", err
	}
	thread, err := image.Parse(core.Text(5))
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%x seccomp %d %d %d %d", thread.Text(10), thread.Number(11), thread.Number(12), task.Number(11), task.Number(12)), nil
}

package criu

import (
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/containerd-snap/snap/checkpoint/criu/image"
)

// OpenFile is a file or directory by its path, which the processes of the images have
// open or mapped, run, or work in.
type OpenFile struct {
	// Path is where the processes have it.
	Path string
	// External is where the mount lies that it is on, if that was brought in from
	// outside; empty for a mount of the container's own.
	External string
	// Size is its length in bytes, which must be the same at a restore; negative where CRIU
	// does not look at it: of directories, and of files that are open for appending only.
	Size int64
	// Mode is its kind and permission bits, as in stat(2), which must be the same at a restore.
	Mode uint32
	// Mapped says that a process has it in its memory.
	Mapped bool
	// Removed says that it had lost this name: the images bring it along.
	Removed bool

	id    uint64
	mount int64
}

// Numbers in a file_entry and a fdinfo_entry (images/fdinfo.proto), a reg_file_entry (images/regfile.proto), a
// mnt_entry (images/mnt.proto), a remap_file_path_entry (images/remap-file-path.proto) and
// the areas of an mm_entry (images/mm.proto, images/vma.proto).
const (
	fileType, fileRegular = 1, 3
	typeRegular           = 1

	fdFile, fdNumber = 1, 4

	regID, regName, regMount, regSize, regMode = 1, 6, 7, 8, 10

	mntID, mntMountpoint, mntKey = 2, 7, 18

	remapFile, remapBy, remapType = 1, 2, 3
	remapLinked                   = 0

	mmArea                                   = 14
	areaStart, areaEnd, areaFile, areaStatus = 1, 2, 4, 7
	areaMapsFile                             = 1<<6 | 1<<7 // VMA_FILE_PRIVATE, VMA_FILE_SHARED
)

// OpenFiles lists the regular files and directories in dir that lie in the container, in the
// order in which CRIU wrote them. Page files and others that were passed in are none.
func OpenFiles(dir string) ([]OpenFile, error) {
	entries, err := messages(dir, "files.img")
	if err != nil {
		return nil, err
	}
	mounts, err := readMounts(dir)
	if err != nil {
		return nil, err
	}
	remaps, err := readRemaps(dir)
	if err != nil {
		return nil, err
	}
	mapped, err := readMapped(dir)
	if err != nil {
		return nil, err
	}
	var files []OpenFile
	for _, entry := range entries {
		reg, err := parseRegular(entry)
		if err != nil {
			return nil, image.Unusable("files.img", err)
		}
		f, ok := openFile(reg)
		if !ok {
			continue
		}
		f.External = mounts[f.mount].external
		f.Mapped = mapped[f.id]
		_, f.Removed = remaps[f.id]
		files = append(files, f)
	}
	return files, nil
}

// parseRegular returns the reg_file_entry of a file_entry; nil for what has none.
func parseRegular(file image.Message) (image.Message, error) {
	if file.Number(fileType) != typeRegular {
		return nil, nil
	}
	return image.Parse(file.Text(fileRegular))
}

// openFile describes a reg_file_entry; ok is false for what has no path in the container, or
// is a device or the like.
func openFile(reg image.Message) (f OpenFile, ok bool) {
	f = OpenFile{Path: string(reg.Text(regName)), Size: -1, id: reg.Number(regID)}
	f.mount = protowire.DecodeZigZag(reg.Number(regMount))
	f.Mode = uint32(reg.Number(regMode))
	if size := reg.Find(regSize); size != nil && size.Value < 1<<62 {
		f.Size = int64(size.Value)
	}
	kind := f.Mode & unix.S_IFMT
	return f, filepath.IsAbs(f.Path) && (kind == unix.S_IFREG || kind == unix.S_IFDIR)
}

// mount is a mount of the captured container.
type mount struct {
	// external is where it lies, if it was brought in from outside.
	external string
}

// readMounts returns the mounts by their number.
func readMounts(dir string) (map[int64]mount, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "mountpoints-*.img"))
	if err != nil {
		return nil, err
	}
	mounts := map[int64]mount{}
	for _, path := range paths {
		entries, err := messages(dir, filepath.Base(path))
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			var m mount
			if len(e.Text(mntKey)) > 0 {
				m.external = string(e.Text(mntMountpoint))
			}
			mounts[int64(e.Number(mntID))] = m //nolint:gosec // a number of 32 bits
		}
	}
	return mounts, nil
}

// remap says how a file comes back that had lost its name.
type remap struct{ kind, by uint64 }

// readRemaps returns the remaps by the number of their file.
func readRemaps(dir string) (map[uint64]remap, error) {
	entries, err := optional(dir, "remap-fpath.img")
	if err != nil {
		return nil, err
	}
	remaps := map[uint64]remap{}
	for _, e := range entries {
		remaps[e.Number(remapFile)] = remap{kind: e.Number(remapType), by: e.Number(remapBy)}
	}
	return remaps, nil
}

// readMapped says which files are mapped, by their number.
func readMapped(dir string) (map[uint64]bool, error) {
	mapped := map[uint64]bool{}
	err := eachArea(dir, func(_ int, area image.Message) {
		mapped[area.Number(areaFile)] = true
	})
	return mapped, err
}

// eachArea calls found for every area that maps a file, with the process that has it.
func eachArea(dir string, found func(pid int, area image.Message)) error {
	tasks, err := tree(dir)
	if err != nil {
		return err
	}
	for _, t := range tasks {
		name := "mm-" + strconv.Itoa(t.pid) + ".img"
		mm, err := optional(dir, name)
		if err != nil {
			return err
		}
		if mm == nil {
			continue // a zombie
		}
		for _, f := range mm[0] {
			if f.Num != mmArea {
				continue
			}
			area, err := image.Parse(f.Bytes)
			if err != nil {
				return image.Unusable(name, err)
			}
			if area.Number(areaStatus)&areaMapsFile != 0 {
				found(t.pid, area)
			}
		}
	}
	return nil
}

// ForgetSizes takes the length out of the images in dir of every file that forget names, so
// that a restore accepts whatever the new container has under its path.
func ForgetSizes(dir string, forget func(OpenFile) bool) error {
	files, err := OpenFiles(dir)
	if err != nil {
		return err
	}
	ids := map[uint64]bool{}
	for _, f := range files {
		if f.Size >= 0 && !f.Removed && forget(f) {
			ids[f.id] = true
		}
	}
	if len(ids) == 0 {
		return nil
	}
	return rewriteImage(dir, "files.img", func(file image.Message) (image.Message, error) {
		reg, err := parseRegular(file)
		if err != nil || reg == nil || !ids[reg.Number(regID)] {
			return nil, err
		}
		file.SetText(fileRegular, reg.Without(regSize).Encode())
		return file, nil
	})
}

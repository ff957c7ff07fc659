package criu

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd-snap/snap/checkpoint/criu/image"
)

// ErrImages is returned for images that CRIU could not restore, or not safely.
var ErrImages = image.ErrUnusable

// Magic numbers of image files (criu/include/magic.h). All but inventory.img
// begin with magicCommon and then the number of their kind.
const (
	magicCommon    = 0x54564319
	magicInventory = 0x58313116
)

// magics are the second numbers of the kinds that are read, by the first part of their names.
var magics = map[string]uint32{
	"core":        0x55053847,
	"fdinfo":      0x56213732,
	"files":       0x56303138,
	"fs":          0x51403912,
	"ids":         0x54432030,
	"mm":          0x57492820,
	"mountpoints": 0x55563928,
	"pagemap":     0x56084025,
	"pstree":      0x50273030,
	"remap":       0x59133954,
}

// maxVersion is the newest image version that is known; CRIU has written 1
// and 2 since 2012 (criu/include/image.h).
const maxVersion = 2

// CheckImages says whether dir holds what CRIU needs for a restore: the files
// that each tree, process and thread has, with the magic numbers of their kinds, of a
// version that is known, and pages files as long as their pagemaps say. It
// reads some kilobytes, no pages. CRIU itself does not always fail for a file that
// is missing or short: it crashes, spins, or restores processes without descriptors.
//
// Errors wrap ErrImages and name the file.
func CheckImages(dir string) error {
	if err := checkInventory(dir); err != nil {
		return err
	}
	tasks, err := tree(dir)
	if err != nil {
		return err
	}
	if err := checkMagic(dir, "files.img"); err != nil {
		return err
	}
	for _, t := range tasks {
		if err := checkTask(dir, t); err != nil {
			return err
		}
	}
	return checkPages(dir)
}

// Processes returns how many processes, threads not counted, the images hold.
func Processes(dir string) (int, error) {
	tasks, err := tree(dir)
	return len(tasks), err
}

var errMagic = errors.New("wrong magic number: damaged, or no image of this kind")

// checkMagic checks the beginning of an image whose kind is the first part of its name.
func checkMagic(dir, name string) error {
	f, _, err := image.Open(filepath.Join(dir, name))
	if err != nil {
		return image.Unusable(name, err)
	}
	defer f.Close()
	var b [image.Header]byte
	if _, err := io.ReadFull(f, b[:]); err != nil {
		return image.Unusable(name, image.ErrTruncated)
	}
	kind := strings.TrimSuffix(name, ".img")
	kind, _, _ = strings.Cut(kind, "-")
	if binary.LittleEndian.Uint32(b[:4]) != magicCommon || binary.LittleEndian.Uint32(b[4:]) != magics[kind] {
		return image.Unusable(name, errMagic)
	}
	return nil
}

// messages returns those of an image of the given kind that holds nothing else, at least one.
func messages(dir, name string) ([]image.Message, error) {
	if err := checkMagic(dir, name); err != nil {
		return nil, err
	}
	im, err := image.Read(dir, name)
	if err != nil {
		return nil, err
	}
	all := make([]image.Message, len(im.Records))
	for i, rec := range im.Records {
		if all[i], err = image.Parse(rec); err != nil {
			return nil, image.Unusable(name, err)
		}
	}
	return all, nil
}

// optional returns the messages of an image that CRIU writes only if there are any.
func optional(dir, name string) ([]image.Message, error) {
	st, err := os.Lstat(filepath.Join(dir, name))
	if errors.Is(err, os.ErrNotExist) || err == nil && st.Size() == image.Header {
		return nil, nil
	}
	return messages(dir, name)
}

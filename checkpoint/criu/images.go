package criu

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// ErrImages is returned for images that CRIU could not restore, or not safely.
var ErrImages = errors.New("CRIU's images are not usable")

// Magic numbers of image files (criu/include/magic.h). All but inventory.img
// begin with magicCommon and then the number of their kind.
const (
	magicCommon    = 0x54564319
	magicInventory = 0x58313116
)

// magics are the second numbers of those kinds that every task has.
var magics = map[string]uint32{
	"core":    0x55053847,
	"fdinfo":  0x56213732,
	"files":   0x56303138,
	"fs":      0x51403912,
	"ids":     0x54432030,
	"mm":      0x57492820,
	"pagemap": 0x56084025,
	"pstree":  0x50273030,
}

const (
	// maxVersion is the newest image version that is known; CRIU has written 1
	// and 2 since 2012 (criu/include/image.h).
	maxVersion = 2
	// maxTree bounds pstree.img and inventory.img, in bytes.
	maxTree = 16 << 20
	header  = 8
)

// CheckImages says whether dir holds what CRIU needs for a restore: the files
// that each tree has, with the magic numbers of their kinds, of a version that
// is known. It reads a few hundred bytes. CRIU itself does not always fail for a
// missing file: it crashes, or restores processes without descriptors.
//
// Errors wrap ErrImages and name the file.
func CheckImages(dir string) error {
	if err := checkInventory(filepath.Join(dir, "inventory.img")); err != nil {
		return err
	}
	pids, err := tree(dir)
	if err != nil {
		return err
	}
	want := []string{"files.img"}
	for _, pid := range pids {
		want = append(want, "core-"+strconv.Itoa(pid)+".img")
	}
	// The root is alive; of the others some may be zombies, which have no memory.
	root := strconv.Itoa(pids[0]) + ".img"
	want = append(want, "mm-"+root, "pagemap-"+root, "fs-"+root, "ids-"+root)
	for _, name := range want {
		if err := checkMagic(dir, name); err != nil {
			return err
		}
	}
	fdinfo, err := filepath.Glob(filepath.Join(dir, "fdinfo-*.img"))
	if err != nil || len(fdinfo) == 0 {
		return fmt.Errorf("%w: fdinfo-*.img is missing", ErrImages)
	}
	for _, f := range fdinfo {
		if err := checkMagic(dir, filepath.Base(f)); err != nil {
			return err
		}
	}
	return nil
}

// Processes returns how many processes, threads not counted, the images hold.
func Processes(dir string) (int, error) {
	pids, err := tree(dir)
	return len(pids), err
}

func unusable(name string, err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %s is missing", ErrImages, name)
	}
	return fmt.Errorf("%w: %s: %w", ErrImages, name, err)
}

var (
	errMagic     = errors.New("wrong magic number: damaged, or no image of this kind")
	errTruncated = errors.New("truncated")
)

// checkMagic checks the beginning of a file whose kind is the first part of its name.
func checkMagic(dir, name string) error {
	f, _, err := openRegular(filepath.Join(dir, name))
	if err != nil {
		return unusable(name, err)
	}
	defer f.Close()
	var b [header]byte
	if _, err := io.ReadFull(f, b[:]); err != nil {
		return unusable(name, errTruncated)
	}
	kind := strings.TrimSuffix(name, ".img")
	kind, _, _ = strings.Cut(kind, "-")
	if binary.LittleEndian.Uint32(b[:4]) != magicCommon || binary.LittleEndian.Uint32(b[4:]) != magics[kind] {
		return unusable(name, errMagic)
	}
	return nil
}

// checkInventory checks the first file that CRIU reads, and its version.
func checkInventory(path string) error {
	name := filepath.Base(path)
	data, err := readRegular(path, maxTree)
	if err != nil {
		return unusable(name, err)
	}
	if len(data) < header || binary.LittleEndian.Uint32(data) != magicInventory {
		return unusable(name, errMagic)
	}
	rec, _, err := record(data[4:])
	if err != nil {
		return unusable(name, err)
	}
	v, err := firstVarint(rec)
	if err != nil {
		return unusable(name, err)
	}
	if v > maxVersion {
		return unusable(name, fmt.Errorf("image version %d is of a newer CRIU: update CRIU on this node", v))
	}
	return nil
}

// tree returns the pids of pstree.img, the root's first.
func tree(dir string) ([]int, error) {
	const name = "pstree.img"
	if err := checkMagic(dir, name); err != nil {
		return nil, err
	}
	data, err := readRegular(filepath.Join(dir, name), maxTree)
	if err != nil {
		return nil, unusable(name, err)
	}
	pids, err := parseTree(data[header:])
	if err != nil {
		return nil, unusable(name, err)
	}
	return pids, nil
}

func parseTree(data []byte) ([]int, error) {
	var pids []int
	for len(data) > 0 {
		rec, rest, err := record(data)
		if err != nil {
			return nil, err
		}
		pid, err := firstVarint(rec)
		if err != nil {
			return nil, err
		}
		if pid == 0 || pid > 1<<22 {
			return nil, fmt.Errorf("pid %d cannot be", pid)
		}
		pids = append(pids, int(pid))
		data = rest
	}
	if len(pids) == 0 {
		return nil, errTruncated
	}
	return pids, nil
}

// record splits off one protobuf message with its length before it.
func record(data []byte) (rec, rest []byte, err error) {
	if len(data) < 4 {
		return nil, nil, errTruncated
	}
	n := uint64(binary.LittleEndian.Uint32(data))
	if n > uint64(len(data)-4) {
		return nil, nil, errTruncated
	}
	return data[4 : 4+n], data[4+n:], nil
}

// firstVarint returns field 1 of a message: the version in inventory.img, the
// pid in pstree.img.
func firstVarint(rec []byte) (uint64, error) {
	for len(rec) > 0 {
		num, typ, n := protowire.ConsumeTag(rec)
		if n < 0 {
			return 0, protowire.ParseError(n)
		}
		rec = rec[n:]
		if num == 1 && typ == protowire.VarintType {
			v, n := protowire.ConsumeVarint(rec)
			if n < 0 {
				return 0, protowire.ParseError(n)
			}
			return v, nil
		}
		n = protowire.ConsumeFieldValue(num, typ, rec)
		if n < 0 {
			return 0, protowire.ParseError(n)
		}
		rec = rec[n:]
	}
	return 0, errors.New("its first field is missing")
}

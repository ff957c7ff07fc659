package mapped

import (
	"fmt"
	"path/filepath"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

func protoNumber(n int) protowire.Number { return protowire.Number(n) }

// Numbers in a file_entry (images/fdinfo.proto) and a reg_file_entry (images/regfile.proto).
const (
	fileType, fileID, fileRegular = 1, 2, 3
	typeRegular                   = 1

	regID, regFlags, regPosition, regOwner, regName, regMount, regSize, regExternal, regMode = 1, 2, 3, 5, 6, 7, 8, 9, 10
)

// files is files.img.
type files struct {
	im *image
	// names are the names of regular files by their number.
	names map[uint64]string
	last  uint64
}

const filesName = "files.img"

func readFiles(dir string) (*files, error) {
	im, err := readImage(dir, filesName)
	if err != nil {
		return nil, err
	}
	fs := &files{im: im, names: map[uint64]string{}}
	if err := fs.parse(); err != nil {
		return nil, unusable(filesName, err)
	}
	return fs, nil
}

func (fs *files) parse() error {
	for _, rec := range fs.im.records {
		id, name, err := parseFile(rec)
		if err != nil {
			return err
		}
		fs.last = max(fs.last, id)
		if name != "" {
			fs.names[id] = name
		}
	}
	return nil
}

// parseFile returns number and name of a file_entry; no name for what is no regular file.
func parseFile(rec []byte) (id uint64, name string, err error) {
	m, err := parse(rec)
	if err != nil {
		return 0, "", err
	}
	id = m.number(fileID)
	if id == 0 || id > 1<<31 {
		return 0, "", fmt.Errorf("file %d cannot be", id)
	}
	if m.number(fileType) != typeRegular {
		return id, "", nil
	}
	reg, err := parse(m.text(fileRegular))
	return id, string(reg.text(regName)), err
}

// add enters a page file and returns its number.
func (fs *files) add(name string, size int64) uint64 {
	fs.last++
	fs.im.records = append(fs.im.records, pageFileEntry(fs.last, name, size))
	fs.names[fs.last] = name
	return fs.last
}

// pageFileEntry is the record of a page file.
func pageFileEntry(id uint64, name string, size int64) []byte {
	var owner message
	for num := protowire.Number(1); num <= 5; num++ {
		owner.set(num, 0)
	}
	var reg message
	reg.set(regID, id)
	reg.set(regFlags, 0) // O_RDONLY
	reg.set(regPosition, 0)
	reg.setBytes(regOwner, owner.encode())
	reg.setBytes(regName, []byte(name))
	reg.set(regMount, protowire.EncodeZigZag(-1))
	reg.set(regSize, uint64(size))
	var m message
	m.set(fileType, typeRegular)
	m.set(fileID, id)
	m.setBytes(fileRegular, reg.encode())
	return m.encode()
}

// rename gives a page file, as a dump describes it, the name that it has at rest.
func (fs *files) rename(id uint64, name string, size int64) error {
	for i, rec := range fs.im.records {
		m, err := parse(rec)
		if err != nil {
			return err
		}
		if m.number(fileID) == id {
			fs.im.records[i] = pageFileEntry(id, name, size)
		}
	}
	fs.names[id] = name
	return nil
}

// remove takes the files with these numbers out.
func (fs *files) remove(ids map[uint64]bool) error {
	kept := fs.im.records[:0:0]
	for _, rec := range fs.im.records {
		id, _, err := parseFile(rec)
		if err != nil {
			return err
		}
		if !ids[id] {
			kept = append(kept, rec)
		}
	}
	fs.im.records = kept
	return nil
}

const (
	keyPrefix  = "snap-pages-"
	filePrefix = "pages-mapped-"
	fileSuffix = ".img"
)

// File is a page file in a directory of images in the mapped form.
type File struct {
	// Path is where it is.
	Path string
	// Key is its name in the images, as an inherited descriptor is named to CRIU.
	Key string
}

// Files lists the page files in dir; none for images in the copy form.
func Files(dir string) ([]File, error) {
	paths, err := filepath.Glob(filepath.Join(dir, filePrefix+"*"+fileSuffix))
	if err != nil {
		return nil, err
	}
	var fs []File
	for _, path := range paths {
		fs = append(fs, File{Path: path, Key: fileKey(filepath.Base(path))})
	}
	return fs, nil
}

// fileKey is the key of the page file with that name.
func fileKey(name string) string {
	return keyPrefix + strings.TrimSuffix(strings.TrimPrefix(name, filePrefix), fileSuffix)
}

// FileName is the name of the page file with that key.
func FileName(key string) string { return filePrefix + strings.TrimPrefix(key, keyPrefix) + fileSuffix }

// IsPageFile says whether a file of images is a page file.
func IsPageFile(name string) bool {
	return strings.HasPrefix(name, filePrefix) && strings.HasSuffix(name, fileSuffix)
}

package mapped

import (
	"fmt"
	"path/filepath"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/containerd-snap/snap/checkpoint/criu/image"
)

// Numbers in a file_entry (images/fdinfo.proto) and a reg_file_entry (images/regfile.proto).
const (
	fileType, fileID, fileRegular = 1, 2, 3
	typeRegular                   = 1

	regID, regFlags, regPosition, regOwner, regName, regMount, regSize, regExternal, regMode = 1, 2, 3, 5, 6, 7, 8, 9, 10
)

// files is files.img.
type files struct {
	im *image.Image
	// names are the names of regular files by their number.
	names map[uint64]string
	last  uint64
}

const filesName = "files.img"

func readFiles(dir string) (*files, error) {
	im, err := image.Read(dir, filesName)
	if err != nil {
		return nil, err
	}
	fs := &files{im: im, names: map[uint64]string{}}
	if err := fs.parse(); err != nil {
		return nil, image.Unusable(filesName, err)
	}
	return fs, nil
}

func (fs *files) parse() error {
	for _, rec := range fs.im.Records {
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
	m, err := image.Parse(rec)
	if err != nil {
		return 0, "", err
	}
	id = m.Number(fileID)
	if id == 0 || id > 1<<31 {
		return 0, "", fmt.Errorf("file %d cannot be", id)
	}
	if m.Number(fileType) != typeRegular {
		return id, "", nil
	}
	reg, err := image.Parse(m.Text(fileRegular))
	return id, string(reg.Text(regName)), err
}

// add enters a page file and returns its number.
func (fs *files) add(name string, size int64) uint64 {
	fs.last++
	fs.im.Records = append(fs.im.Records, pageFileEntry(fs.last, name, size))
	fs.names[fs.last] = name
	return fs.last
}

// pageFileEntry is the record of a page file.
func pageFileEntry(id uint64, name string, size int64) []byte {
	var owner image.Message
	for num := protowire.Number(1); num <= 5; num++ {
		owner.Set(num, 0)
	}
	var reg image.Message
	reg.Set(regID, id)
	reg.Set(regFlags, 0) // O_RDONLY
	reg.Set(regPosition, 0)
	reg.SetText(regOwner, owner.Encode())
	reg.SetText(regName, []byte(name))
	reg.Set(regMount, protowire.EncodeZigZag(-1))
	reg.Set(regSize, uint64(size))
	var m image.Message
	m.Set(fileType, typeRegular)
	m.Set(fileID, id)
	m.SetText(fileRegular, reg.Encode())
	return m.Encode()
}

// rename gives a page file, as a dump describes it, the name that it has at rest.
func (fs *files) rename(id uint64, name string, size int64) error {
	for i, rec := range fs.im.Records {
		m, err := image.Parse(rec)
		if err != nil {
			return err
		}
		if m.Number(fileID) == id {
			fs.im.Records[i] = pageFileEntry(id, name, size)
		}
	}
	fs.names[id] = name
	return nil
}

// remove takes the files with these numbers out.
func (fs *files) remove(ids map[uint64]bool) error {
	kept := fs.im.Records[:0:0]
	for _, rec := range fs.im.Records {
		id, _, err := parseFile(rec)
		if err != nil {
			return err
		}
		if !ids[id] {
			kept = append(kept, rec)
		}
	}
	fs.im.Records = kept
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

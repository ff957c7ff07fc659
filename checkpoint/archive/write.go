package archive

import (
	"archive/tar"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/store"
)

// Write writes a registered checkpoint to w. It calls progress, if that is not nil, with
// the bytes of files written so far and those in all. Nobody can remove the checkpoint
// meanwhile. What a restore checks is checked first; page data are whoever reads the
// stream's to check.
func Write(ctx context.Context, st *store.Store, e checkpoint.Entry, w io.Writer, progress func(done, total int64)) error {
	if err := write(ctx, st, e, w, progress); err != nil {
		return fmt.Errorf("export checkpoint %s: %w", e.Digest, err)
	}
	return nil
}

func write(ctx context.Context, st *store.Store, e checkpoint.Entry, w io.Writer, progress func(done, total int64)) error {
	release, err := st.Hold(e.Digest)
	if err != nil {
		return err
	}
	defer release()
	if err := st.VerifyMetadata(e); err != nil {
		return err
	}
	manifest, err := os.ReadFile(filepath.Join(e.Dir, manifestName))
	if err != nil {
		return err
	}
	x := &writer{ended: func() error { return context.Cause(ctx) }, tar: tar.NewWriter(w), links: map[inode]string{}, progress: progress, total: e.Checkpoint.Bytes()}
	head := &tar.Header{Typeflag: tar.TypeReg, Name: manifestName, Mode: 0o400, Size: int64(len(manifest)), ModTime: e.Checkpoint.CreatedAt.Truncate(time.Second)}
	if err := x.tar.WriteHeader(head); err != nil {
		return err
	}
	if _, err := x.tar.Write(manifest); err != nil {
		return err
	}
	for _, part := range []string{imagesName, diffName} {
		err := filepath.WalkDir(filepath.Join(e.Dir, part), func(path string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return x.node(path, strings.TrimPrefix(path, e.Dir+"/"))
		})
		if err != nil {
			return err
		}
	}
	return x.tar.Close()
}

// inode identifies a file that may have several names.
type inode struct{ dev, ino uint64 }

// writer writes one stream.
type writer struct {
	tar *tar.Writer
	// ended returns why the work is to end; nil if it is not.
	ended func() error
	// links are the names under which files with several were written.
	links       map[inode]string
	progress    func(done, total int64)
	done, total int64
}

// node writes what is at path, under a name.
func (x *writer) node(path, name string) error {
	if err := x.ended(); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	h := &tar.Header{
		Name: name, Format: tar.FormatPAX, PAXRecords: map[string]string{},
		Mode: int64(st.Mode &^ unix.S_IFMT), Uid: int(st.Uid), Gid: int(st.Gid), ModTime: time.Unix(st.Mtim.Unix()),
	}
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFDIR && st.Nlink > 1 {
		key := inode{st.Dev, st.Ino}
		if first, ok := x.links[key]; ok {
			h.Typeflag, h.Linkname = tar.TypeLink, first
			return x.tar.WriteHeader(h)
		}
		x.links[key] = name
	}
	if !strings.HasPrefix(name, imagesName) {
		if err := readXattrs(path, h.PAXRecords); err != nil {
			return err
		}
	}
	switch kind {
	case unix.S_IFREG:
		return x.file(path, h, st.Size)
	case unix.S_IFDIR:
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		if err != nil {
			return err
		}
		h.Typeflag, h.Linkname = tar.TypeSymlink, target
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFSOCK:
		h.Typeflag, h.PAXRecords[recordSocket] = tar.TypeReg, "1"
	case unix.S_IFCHR:
		if st.Rdev == 0 {
			h.Typeflag = tar.TypeChar
			break
		}
		fallthrough
	default:
		return fmt.Errorf("%s is a device, which is not carried to another node; capture without it", name)
	}
	return x.tar.WriteHeader(h)
}

// file writes a regular file, with its holes.
func (x *writer) file(path string, h *tar.Header, size int64) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := extents(f, size)
	if err != nil {
		return &os.PathError{Op: "seek", Path: path, Err: err}
	}
	h.Typeflag, h.Size = tar.TypeReg, size
	whole := len(data) == 1 && data[0] == extent{0, size} || size == 0
	if !whole {
		h.PAXRecords[recordSize] = strconv.FormatInt(size, 10)
		h.Size = 0
		for _, e := range data {
			h.Size += extentHead + e.length
		}
	}
	if err := x.tar.WriteHeader(h); err != nil {
		return err
	}
	for _, e := range data {
		if !whole {
			var head [extentHead]byte
			binary.LittleEndian.PutUint64(head[:8], uint64(e.offset))
			binary.LittleEndian.PutUint64(head[8:], uint64(e.length))
			if _, err := x.tar.Write(head[:]); err != nil {
				return err
			}
		}
		if err := x.copy(io.NewSectionReader(f, e.offset, e.length)); err != nil {
			return fmt.Errorf("write %s: %w", h.Name, err)
		}
	}
	return nil
}

// copy writes content, and looks at the context now and then.
func (x *writer) copy(r io.Reader) error {
	for {
		n, err := io.CopyN(x.tar, r, 1<<20)
		x.done += n
		if x.progress != nil {
			// What is not counted are holes that the file system does not know.
			x.progress(min(x.done, x.total), x.total)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = x.ended()
		}
		if err != nil {
			return err
		}
	}
}

// extent is a part of a file that is no hole.
type extent struct{ offset, length int64 }

// extents returns what of a file of that size is no hole, in whole blocks.
func extents(f *os.File, size int64) ([]extent, error) {
	var found []extent
	for at := int64(0); at < size; {
		data, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		if err != nil {
			return nil, err
		}
		hole, err := unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE)
		if err != nil {
			return nil, err
		}
		from, to := max(at, data/block*block), min(size, (hole+block-1)/block*block)
		found = append(found, extent{from, to - from})
		at = to
	}
	return found, nil
}

// maxXattr is the kernel's bound for a list of names and for a value, in bytes
// (XATTR_LIST_MAX, XATTR_SIZE_MAX).
const maxXattr = 64 << 10

// readXattrs adds the extended attributes that belong to the checkpoint.
func readXattrs(path string, into map[string]string) error {
	size, err := unix.Llistxattr(path, nil)
	if errors.Is(err, unix.ENOTSUP) || err == nil && size == 0 {
		return nil
	}
	names := make([]byte, maxXattr)
	if size, err = unix.Llistxattr(path, names); err != nil {
		return &os.PathError{Op: "list extended attributes", Path: path, Err: err}
	}
	value := make([]byte, maxXattr)
	for name := range strings.SplitSeq(strings.TrimRight(string(names[:size]), "\x00"), "\x00") {
		if !covered(name) {
			continue
		}
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return &os.PathError{Op: "read extended attribute " + name, Path: path, Err: err}
		}
		into[recordXattr+name] = string(value[:n])
	}
	return nil
}

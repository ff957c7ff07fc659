package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
)

// unpacker writes what a stream holds to the directories of a draft. A path is created
// only in a directory that the same stream has created before, and only if nothing is there: no link
// can lead it elsewhere.
type unpacker struct {
	dirs map[string]string
	// ended returns why the work is to end; nil if it is not.
	ended func() error
	// listed are the images of the manifest that have not come yet.
	listed map[string]*checkpoint.File
	// nodes and bytes are what the writable layer may still hold.
	nodes int
	bytes int64
	// made are the directories so far, by their place, files the other nodes.
	made, files map[string]bool
	// later are the directories' own attributes, set when they are full.
	later []func() error

	progress    func(done, total int64)
	done, total int64
}

func newUnpacker(ctx context.Context, meta *checkpoint.Checkpoint, dirs map[string]string, progress func(done, total int64)) *unpacker {
	u := &unpacker{
		dirs: dirs, ended: func() error { return context.Cause(ctx) }, listed: map[string]*checkpoint.File{}, nodes: meta.Diff.Files, bytes: meta.Diff.Bytes,
		made: map[string]bool{}, files: map[string]bool{}, progress: progress, total: meta.Bytes(),
	}
	for i := range meta.Files {
		u.listed[meta.Files[i].Path] = &meta.Files[i]
	}
	return u
}

// unpack reads all entries that follow the manifest.
func (u *unpacker) unpack(stream *tar.Reader) error {
	for {
		if err := u.ended(); err != nil {
			return err
		}
		h, err := stream.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return broken(err)
		}
		if err := u.entry(h, stream); err != nil {
			return fmt.Errorf("read %.200q: %w", h.Name, err)
		}
	}
	for name := range u.listed {
		return fmt.Errorf("%w: image %s is missing in the stream", checkpoint.ErrCorrupt, name)
	}
	for _, set := range slices.Backward(u.later) {
		if err := set(); err != nil {
			return err
		}
	}
	return nil
}

// entry creates what one entry says.
func (u *unpacker) entry(h *tar.Header, content io.Reader) error {
	part, rel, err := split(h.Name)
	if err != nil {
		return errStream("%w", err)
	}
	target := filepath.Join(u.dirs[part], rel)
	if u.made[target] || u.files[target] {
		return errStream("it comes twice")
	}
	if rel != "." && !u.made[filepath.Dir(target)] {
		return errStream("it comes before its directory")
	}
	for key := range h.PAXRecords {
		// A file of exabytes, all of them zero, that package tar would deliver one by one.
		if strings.HasPrefix(key, "GNU.sparse.") {
			return errStream("it has holes as GNU tar writes them")
		}
	}
	size, sparse, err := sizeOf(h)
	if err != nil {
		return err
	}
	f := file{size: size, sparse: sparse}
	switch {
	case part == imagesName:
		f.room, err = u.image(h, rel, size)
	case rel != ".":
		f.room, err = &u.bytes, u.take()
	}
	if err != nil {
		return err
	}
	if err := u.create(h, target, rel == ".", content, f); err != nil {
		return err
	}
	if part == imagesName {
		// Of images only the content counts: the rest is the store's.
		u.made[target] = h.Typeflag == tar.TypeDir
		u.files[target] = !u.made[target]
		return nil
	}
	if h.Typeflag == tar.TypeDir {
		u.made[target] = true
		u.later = append(u.later, func() error { return attributes(target, h) })
		return nil
	}
	u.files[target] = true
	if h.Typeflag == tar.TypeLink {
		return nil
	}
	return attributes(target, h)
}

// file is the content of a regular file to come.
type file struct {
	size int64
	// sparse says that it comes as extents.
	sparse bool
	// room is how many of its bytes may be other than zero, which are taken off it; nil
	// for an image that comes whole: its size is the manifest's.
	room *int64
}

// sizeOf returns the size of an entry's file, and whether it has holes.
func sizeOf(h *tar.Header) (size int64, sparse bool, err error) {
	text, sparse := h.PAXRecords[recordSize]
	if !sparse {
		return h.Size, false, nil
	}
	size, err = strconv.ParseInt(text, 10, 64)
	if err != nil || size < 0 || h.Typeflag != tar.TypeReg {
		return 0, false, errStream("its %s is %.40q", recordSize, text)
	}
	return size, true, nil
}

// image checks an entry of images/ against the manifest, and returns its room.
func (u *unpacker) image(h *tar.Header, rel string, size int64) (room *int64, err error) {
	f := u.listed[rel]
	switch {
	case hasXattrs(h):
		return nil, errStream("an image has no extended attributes")
	case h.Typeflag == tar.TypeDir && !u.leads(rel):
		return nil, errStream("the manifest lists no image in it")
	case h.Typeflag == tar.TypeDir:
		return nil, nil
	case h.Typeflag != tar.TypeReg || h.PAXRecords[recordSocket] != "":
		return nil, errStream("an image is a regular file")
	case f == nil:
		return nil, errStream("the manifest does not list it")
	case f.Size != size:
		return nil, fmt.Errorf("%w: it has %d bytes, the manifest says %d", checkpoint.ErrCorrupt, size, f.Size)
	}
	delete(u.listed, rel)
	if _, sparse := h.PAXRecords[recordSize]; !sparse {
		return nil, nil
	}
	bytes := f.Bytes()
	return &bytes, nil
}

// leads says that an image that is to come lies below a directory of images/.
func (u *unpacker) leads(dir string) bool {
	if dir == "." {
		return true
	}
	for name := range u.listed {
		if strings.HasPrefix(name, dir+"/") {
			return true
		}
	}
	return false
}

// take counts a node of the writable layer.
func (u *unpacker) take() error {
	if u.nodes--; u.nodes < 0 {
		return fmt.Errorf("%w: the writable layer holds more than the manifest says", checkpoint.ErrCorrupt)
	}
	return nil
}

// create makes the node at target, which must not exist unless it is the root of a part.
func (u *unpacker) create(h *tar.Header, target string, root bool, content io.Reader, c file) error {
	if root && h.Typeflag != tar.TypeDir {
		return errStream("it is no directory")
	}
	switch h.Typeflag {
	case tar.TypeDir:
		if root {
			return nil // of the draft
		}
		return os.Mkdir(target, 0o700)
	case tar.TypeReg:
		if h.PAXRecords[recordSocket] != "" {
			return mknod(target, unix.S_IFSOCK)
		}
		return u.file(target, content, c)
	case tar.TypeLink:
		part, rel, err := split(h.Linkname)
		first := filepath.Join(u.dirs[part], rel)
		if err != nil || part != diffName || !u.files[first] {
			return errStream("it is a link to %.200q, which has not come", h.Linkname)
		}
		return os.Link(first, target)
	case tar.TypeSymlink:
		return os.Symlink(h.Linkname, target)
	case tar.TypeFifo:
		return mknod(target, unix.S_IFIFO)
	case tar.TypeChar:
		if h.Devmajor == 0 && h.Devminor == 0 {
			return mknod(target, unix.S_IFCHR)
		}
	}
	return errStream("it is a device, or of a kind that no checkpoint holds")
}

func mknod(target string, kind uint32) error {
	if err := unix.Mknod(target, kind|0o600, 0); err != nil {
		return &os.PathError{Op: "mknod", Path: path.Base(target), Err: err}
	}
	return nil
}

// file writes a regular file.
func (u *unpacker) file(target string, content io.Reader, c file) (err error) {
	f, err := os.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if c.room == nil {
		return u.plain(f, content, c.size)
	}
	if err := f.Truncate(c.size); err != nil {
		return err
	}
	if !c.sparse {
		return u.extent(f, content, 0, c.size, c.room)
	}
	for end := int64(0); ; {
		var head [extentHead]byte
		if _, err := io.ReadFull(content, head[:]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return broken(err)
		}
		offset, length := int64(binary.LittleEndian.Uint64(head[:8])), int64(binary.LittleEndian.Uint64(head[8:]))
		if offset < end || offset%block != 0 || length <= 0 || length > c.size-offset {
			return errStream("an extent of %d bytes at %d, of %d", length, offset, c.size)
		}
		end = offset + length
		if err := u.extent(f, content, offset, end, c.room); err != nil {
			return err
		}
	}
}

// plain writes the content of a file without holes.
func (u *unpacker) plain(f *os.File, content io.Reader, size int64) error {
	for left := size; left > 0; {
		if err := u.ended(); err != nil {
			return err
		}
		n, err := io.CopyN(f, content, min(left, 1<<20))
		if err != nil {
			return broken(err)
		}
		left -= n
		u.count(n)
	}
	return nil
}

// extent writes the blocks of an extent that are not zero, for which there must be room.
func (u *unpacker) extent(f *os.File, content io.Reader, offset, end int64, room *int64) error {
	var buf, zero [block]byte
	for offset < end {
		if err := u.ended(); err != nil {
			return err
		}
		b := buf[:min(block, end-offset)]
		if _, err := io.ReadFull(content, b); err != nil {
			return broken(err)
		}
		if !bytes.Equal(b, zero[:len(b)]) {
			if *room -= int64(len(b)); *room < 0 {
				return fmt.Errorf("%w: it holds more than the manifest says", checkpoint.ErrCorrupt)
			}
			if _, err := f.WriteAt(b, offset); err != nil {
				return err
			}
			u.count(int64(len(b)))
		}
		offset += int64(len(b))
	}
	return nil
}

func (u *unpacker) count(n int64) {
	u.done += n
	if u.progress != nil {
		u.progress(u.done, u.total)
	}
}

func hasXattrs(h *tar.Header) bool {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, recordXattr) {
			return true
		}
	}
	return false
}

// attributes gives a node its owner, extended attributes, mode and time, in the order in
// which none undoes another.
func attributes(target string, h *tar.Header) error {
	if err := os.Lchown(target, h.Uid, h.Gid); err != nil {
		return err
	}
	for key, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, recordXattr)
		if !ok {
			continue
		}
		if !covered(name) {
			return errStream("it has the extended attribute %.80q, which belongs to no checkpoint", name)
		}
		if err := unix.Lsetxattr(target, name, []byte(value), 0); err != nil {
			return &os.PathError{Op: "set extended attribute " + name, Path: path.Base(target), Err: err}
		}
	}
	if h.Typeflag != tar.TypeSymlink {
		if err := unix.Chmod(target, uint32(h.Mode)&0o7777); err != nil {
			return &os.PathError{Op: "chmod", Path: path.Base(target), Err: err}
		}
	}
	at := unix.NsecToTimespec(h.ModTime.UnixNano())
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, target, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "set the time", Path: path.Base(target), Err: err}
	}
	return nil
}

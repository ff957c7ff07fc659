package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// block is the unit of a sparse file's digest: its offset and content are digested if it
// is not all zero. What the file system keeps as a hole makes no difference.
const block = 4096

// isSparse says whether the image of that path is mostly a hole: a page file (package mapped).
func isSparse(p string) bool { return strings.HasPrefix(path.Base(p), "pages-mapped-") }

// hashSparse returns the digest of f, and how much of it is not zero. It reads no hole.
func hashSparse(ctx context.Context, f *os.File, onRead func(int64)) (sum string, stored int64, err error) {
	st, err := f.Stat()
	if err != nil {
		return "", 0, err
	}
	startWriting(f)
	h := sha256.New()
	buf := chunks.Get().(*[chunk]byte)
	defer chunks.Put(buf)
	var head [8]byte
	for off := int64(0); off < st.Size(); {
		if err := context.Cause(ctx); err != nil {
			return "", 0, err
		}
		data, err := seek(f, off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		if err != nil {
			return "", 0, err
		}
		off = max(off, data/block*block)
		hole, err := seek(f, max(off, data), unix.SEEK_HOLE)
		if err != nil {
			return "", 0, err
		}
		for off < hole {
			n, err := f.ReadAt(buf[:min(chunk, (hole-off+block-1)/block*block)], off)
			if err != nil && !errors.Is(err, io.EOF) {
				return "", 0, err
			}
			if n == 0 {
				return hex.EncodeToString(h.Sum(nil)), stored, nil // truncated meanwhile: the size is checked elsewhere
			}
			for at := 0; at < n; at += block {
				b := buf[at:min(at+block, n)]
				if allZero(b) {
					continue
				}
				binary.LittleEndian.PutUint64(head[:], uint64(off)+uint64(at))
				h.Write(head[:])
				h.Write(b)
				stored += int64(len(b))
				if onRead != nil {
					onRead(int64(len(b)))
				}
			}
			off += int64(n)
		}
	}
	fmt.Fprintf(h, "size %d", st.Size())
	return hex.EncodeToString(h.Sum(nil)), stored, nil
}

func seek(f *os.File, off int64, whence int) (int64, error) {
	for {
		at, err := unix.Seek(int(f.Fd()), off, whence)
		if !errors.Is(err, unix.EINTR) {
			return at, err
		}
	}
}

var zeroes [block]byte

func allZero(b []byte) bool { return bytes.Equal(b, zeroes[:len(b)]) }

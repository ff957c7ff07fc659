// Package image reads and writes the files that CRIU makes: magic numbers, and after them
// messages of protobuf (https://criu.org/Images), each with its length before it. What the messages
// say is for others to know.
//
// Images may come from elsewhere: no input makes it panic or read without bound, and no link
// or device is opened.
package image

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

var (
	// ErrUnusable is returned for images that CRIU could not restore, or not safely.
	ErrUnusable = errors.New("CRIU's images are not usable")
	// ErrTruncated is returned for an image that ends too early.
	ErrTruncated = errors.New("truncated")
)

// Unusable is err about the image of that name, as an ErrUnusable.
func Unusable(name string, err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %s is missing", ErrUnusable, name)
	}
	return fmt.Errorf("%w: %s: %w", ErrUnusable, name, err)
}

const (
	// Header is the length of an image's two magic numbers, in bytes.
	Header = 8
	// MaxSize bounds an image that is read as a whole, in bytes: the pagemap of a
	// process with a million separate areas has about 20 MB.
	MaxSize = 64 << 20
)

// Image is an image of messages.
type Image struct {
	// Magic are its magic numbers.
	Magic []byte
	// Records are the messages, encoded.
	Records [][]byte
}

// Read returns the image of that name in dir, with at least one message. Errors wrap ErrUnusable.
func Read(dir, name string) (*Image, error) {
	data, err := ReadFile(filepath.Join(dir, name))
	var im *Image
	if err == nil {
		im, err = Split(data)
	}
	if err == nil && len(im.Records) == 0 {
		err = ErrTruncated
	}
	if err != nil {
		return nil, Unusable(name, err)
	}
	return im, nil
}

// Split splits an image, whose parts then share its bytes.
func Split(data []byte) (*Image, error) {
	if len(data) < Header {
		return nil, ErrTruncated
	}
	recs, err := Records(data[Header:])
	return &Image{Magic: data[:Header], Records: recs}, err
}

// Records splits what follows the magic numbers.
func Records(data []byte) ([][]byte, error) {
	var recs [][]byte
	for len(data) > 0 {
		if len(data) < 4 || uint64(binary.LittleEndian.Uint32(data)) > uint64(len(data)-4) {
			return nil, fmt.Errorf("record %d: %w", len(recs), ErrTruncated)
		}
		n := 4 + uint64(binary.LittleEndian.Uint32(data))
		recs, data = append(recs, data[4:n]), data[n:]
	}
	return recs, nil
}

// Encode is the image as it stands in a file.
func (im *Image) Encode() []byte {
	b := append([]byte(nil), im.Magic...)
	for _, rec := range im.Records {
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(rec))), rec...)
	}
	return b
}

// Open opens a regular file for reading, and returns its size. Symbolic links, fifos and
// devices are refused.
func Open(path string) (*os.File, int64, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", path)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, st.Size(), nil
}

// ReadFile reads a regular file of at most MaxSize bytes.
func ReadFile(path string) ([]byte, error) {
	f, size, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > MaxSize {
		return nil, fmt.Errorf("%s has %d bytes, more than the %d that such a file can need", path, size, MaxSize)
	}
	return io.ReadAll(io.LimitReader(f, MaxSize))
}

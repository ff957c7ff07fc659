package mapped

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protowire"
)

// ErrImages is returned for images that are not what CRIU writes.
var ErrImages = errors.New("CRIU's images are not usable")

// field is one field of a message, as it was read.
type field struct {
	num protowire.Number
	typ protowire.Type
	// value is that of a varint, bytes that of a string or an embedded message.
	value uint64
	bytes []byte
	// raw is the value's encoding, for types that are only passed on.
	raw []byte
}

// message is a protobuf message whose unknown fields are kept.
type message []field

func parse(b []byte) (message, error) {
	var m message
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		b = b[n:]
		f := field{num: num, typ: typ}
		switch typ {
		case protowire.VarintType:
			f.value, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			f.bytes, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		f.raw, b = b[:n], b[n:]
		m = append(m, f)
	}
	return m, nil
}

func (m message) encode() []byte {
	var b []byte
	for _, f := range m {
		b = protowire.AppendTag(b, f.num, f.typ)
		switch f.typ {
		case protowire.VarintType:
			b = protowire.AppendVarint(b, f.value)
		case protowire.BytesType:
			b = protowire.AppendBytes(b, f.bytes)
		default:
			b = append(b, f.raw...)
		}
	}
	return b
}

// find returns the last field of that number, as protobuf has it; nil for none.
func (m message) find(num protowire.Number) *field {
	for i := len(m) - 1; i >= 0; i-- {
		if m[i].num == num {
			return &m[i]
		}
	}
	return nil
}

func (m message) number(num protowire.Number) uint64 {
	if f := m.find(num); f != nil {
		return f.value
	}
	return 0
}

func (m message) text(num protowire.Number) []byte {
	if f := m.find(num); f != nil {
		return f.bytes
	}
	return nil
}

// set gives a varint field a value.
func (m *message) set(num protowire.Number, v uint64) {
	if f := m.find(num); f != nil {
		f.typ, f.value = protowire.VarintType, v
		return
	}
	*m = append(*m, field{num: num, typ: protowire.VarintType, value: v})
}

// setBytes gives a string or an embedded message a value.
func (m *message) setBytes(num protowire.Number, v []byte) {
	if f := m.find(num); f != nil {
		f.typ, f.bytes = protowire.BytesType, v
		return
	}
	*m = append(*m, field{num: num, typ: protowire.BytesType, bytes: v})
}

// header is the length of an image's two magic numbers.
const header = 8

// maxImage bounds an image that is read as a whole.
const maxImage = 64 << 20

// image is an image file of messages.
type image struct {
	magic   []byte
	records [][]byte
}

func readImage(dir, name string) (*image, error) {
	data, err := readFile(filepath.Join(dir, name))
	if err != nil {
		return nil, unusable(name, err)
	}
	im, err := splitImage(data)
	if err != nil {
		return nil, unusable(name, err)
	}
	return im, nil
}

func splitImage(data []byte) (*image, error) {
	if len(data) < header {
		return nil, errTruncated
	}
	im := &image{magic: data[:header]}
	for data = data[header:]; len(data) > 0; {
		if len(data) < 4 || uint64(binary.LittleEndian.Uint32(data)) > uint64(len(data)-4) {
			return nil, fmt.Errorf("record %d: %w", len(im.records), errTruncated)
		}
		n := 4 + binary.LittleEndian.Uint32(data)
		im.records = append(im.records, data[4:n])
		data = data[n:]
	}
	if len(im.records) == 0 {
		return nil, errTruncated
	}
	return im, nil
}

func (im *image) encode() []byte {
	b := append([]byte(nil), im.magic...)
	for _, rec := range im.records {
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(rec))), rec...)
	}
	return b
}

var errTruncated = errors.New("truncated")

func unusable(name string, err error) error {
	return fmt.Errorf("%w: %s: %w", ErrImages, name, err)
}

// openRegular opens a regular file, following no link.
func openRegular(path string) (*os.File, int64, error) {
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

func readFile(path string) ([]byte, error) {
	f, size, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > maxImage {
		return nil, fmt.Errorf("%d bytes are more than such a file can need", size)
	}
	return io.ReadAll(io.LimitReader(f, maxImage))
}

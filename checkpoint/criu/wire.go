package criu

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/encoding/protowire"
)

// field is one field of a protobuf message. Of the kinds of fields only those
// that this package reads keep a value.
type field struct {
	num protowire.Number
	// value is that of a varint.
	value uint64
	// bytes is that of a string or an embedded message.
	bytes []byte
}

// fields splits a message. Fields that are not known are kept, as newer versions
// of CRIU add some.
func fields(msg []byte) ([]field, error) {
	var fs []field
	for len(msg) > 0 {
		num, typ, n := protowire.ConsumeTag(msg)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		msg = msg[n:]
		f := field{num: num}
		switch typ {
		case protowire.VarintType:
			f.value, n = protowire.ConsumeVarint(msg)
		case protowire.BytesType:
			f.bytes, n = protowire.ConsumeBytes(msg)
		default:
			n = protowire.ConsumeFieldValue(num, typ, msg)
		}
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		msg = msg[n:]
		fs = append(fs, f)
	}
	return fs, nil
}

// record splits off one message with its length before it.
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

// records returns the messages of an image of the given kind that holds nothing else,
// at least one.
func records(dir, name string) ([][]byte, error) {
	if err := checkMagic(dir, name); err != nil {
		return nil, err
	}
	data, err := readRegular(filepath.Join(dir, name), maxImage)
	if err != nil {
		return nil, unusable(name, err)
	}
	recs, err := splitRecords(data[header:])
	if err != nil {
		return nil, unusable(name, err)
	}
	return recs, nil
}

// optional returns the messages of an image that CRIU writes only if there are any.
func optional(dir, name string) ([][]byte, error) {
	st, err := os.Lstat(filepath.Join(dir, name))
	if errors.Is(err, os.ErrNotExist) || err == nil && st.Size() == header {
		return nil, nil
	}
	return records(dir, name)
}

func splitRecords(data []byte) ([][]byte, error) {
	var recs [][]byte
	for first := true; first || len(data) > 0; first = false {
		rec, rest, err := record(data)
		if err != nil {
			return nil, fmt.Errorf("record %d: %w", len(recs), err)
		}
		recs, data = append(recs, rec), rest
	}
	return recs, nil
}

// find returns the last field of that number, as protobuf has it; nil for none.
func find(fs []field, num protowire.Number) *field {
	for i := len(fs) - 1; i >= 0; i-- {
		if fs[i].num == num {
			return &fs[i]
		}
	}
	return nil
}

// number is the value of a varint; 0 for none.
func number(fs []field, num protowire.Number) uint64 {
	if f := find(fs, num); f != nil {
		return f.value
	}
	return 0
}

// text is that of a string or an embedded message; nil for none.
func text(fs []field, num protowire.Number) []byte {
	if f := find(fs, num); f != nil {
		return f.bytes
	}
	return nil
}

// rewrite returns msg, which fields has split before, with what change makes of its embedded
// messages of that number.
func rewrite(msg []byte, num protowire.Number, change func([]byte) []byte) []byte {
	var out []byte
	eachRaw(msg, func(n protowire.Number, raw, value []byte) {
		if n != num {
			out = append(out, raw...)
			return
		}
		embedded, _ := protowire.ConsumeBytes(value)
		out = protowire.AppendTag(out, n, protowire.BytesType)
		out = protowire.AppendBytes(out, change(embedded))
	})
	return out
}

// without returns msg, which fields has split before, without the fields of that number.
func without(msg []byte, num protowire.Number) []byte {
	var out []byte
	eachRaw(msg, func(n protowire.Number, raw, _ []byte) {
		if n != num {
			out = append(out, raw...)
		}
	})
	return out
}

// eachRaw calls f with each field of a message: all of it, and its value alone.
func eachRaw(msg []byte, f func(num protowire.Number, raw, value []byte)) {
	for len(msg) > 0 {
		num, typ, tag := protowire.ConsumeTag(msg)
		if tag < 0 {
			return
		}
		n := protowire.ConsumeFieldValue(num, typ, msg[tag:])
		if n < 0 {
			return
		}
		f(num, msg[:tag+n], msg[tag:tag+n])
		msg = msg[tag+n:]
	}
}

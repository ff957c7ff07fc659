package criu

import (
	"encoding/binary"
	"fmt"
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

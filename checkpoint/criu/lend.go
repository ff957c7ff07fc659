package criu

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protowire"
)

// LendSockets changes the images in dir, a directory that Stage has filled, so that CRIU
// takes the sockets with the numbers in keys from descriptors that it inherits, each under its key
// (InheritFD), instead of making them. To CRIU they are then open regular files: those it
// takes from descriptors, and does not look at further.
func LendSockets(dir string, keys map[uint32]string) error {
	if len(keys) == 0 {
		return nil
	}
	err := rewriteImage(dir, "files.img", func(rec []byte) ([]byte, error) {
		kind, id, _, err := parseFile(rec)
		if key := keys[id]; err == nil && kind == typeInet && key != "" {
			rec = regularFile(id, key)
		}
		return rec, err
	})
	if err != nil {
		return err
	}
	tables, err := filepath.Glob(filepath.Join(dir, "fdinfo-*.img"))
	if err != nil {
		return err
	}
	for _, path := range tables {
		err := rewriteImage(dir, filepath.Base(path), func(rec []byte) ([]byte, error) { return lendDescriptor(rec, keys) })
		if err != nil {
			return err
		}
	}
	return nil
}

// rewriteImage puts an image in the place of one in dir, each of whose records is what change
// makes of the old one. The old file, which may have other names, stays as it is.
func rewriteImage(dir, name string, change func(rec []byte) ([]byte, error)) error {
	path := filepath.Join(dir, name)
	data, err := readRegular(path, maxImage)
	if err == nil && len(data) < header {
		err = errTruncated
	}
	if err != nil {
		return unusable(name, err)
	}
	b := slices.Clone(data[:header])
	for rest := data[header:]; len(rest) > 0; {
		var rec []byte
		if rec, rest, err = record(rest); err == nil {
			rec, err = change(rec)
		}
		if err != nil {
			return unusable(name, err)
		}
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(rec))), rec...)
	}
	if bytes.Equal(b, data) {
		return nil
	}
	if err := writeFile(path, b); err != nil {
		return fmt.Errorf("stage images: %w", err)
	}
	return nil
}

// regularFile is a file_entry with a reg_file_entry (images/regfile.proto).
func regularFile(id uint32, name string) []byte {
	const regFlags, regPosition, regOwner = 2, 3, 5
	var owner, reg, rec []byte
	for num := protowire.Number(1); num <= 5; num++ {
		owner = appendNumber(owner, num, 0)
	}
	reg = appendNumber(reg, regID, uint64(id))
	reg = appendNumber(reg, regFlags, unix.O_RDWR)
	reg = appendNumber(reg, regPosition, 0)
	reg = appendText(reg, regOwner, owner)
	reg = appendText(reg, regName, []byte("/"+name))
	reg = appendNumber(reg, regMount, protowire.EncodeZigZag(-1))
	rec = appendNumber(rec, fileType, typeRegular)
	rec = appendNumber(rec, fileID, uint64(id))
	return appendText(rec, fileRegular, reg)
}

// lendDescriptor changes the kind of file in a fdinfo_entry, if keys has the file.
func lendDescriptor(rec []byte, keys map[uint32]string) ([]byte, error) {
	fs, err := fields(rec)
	if err != nil || number(fs, fdType) != typeInet || keys[uint32(number(fs, fdFile))] == "" {
		return rec, err
	}
	// Of fields that are there more than once the last one counts.
	return appendNumber(slices.Clone(rec), fdType, typeRegular), nil
}

func appendNumber(b []byte, num protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), v)
}

func appendText(b []byte, num protowire.Number, text []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, num, protowire.BytesType), text)
}

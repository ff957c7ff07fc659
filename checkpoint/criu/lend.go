package criu

import (
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/containerd-snap/snap/checkpoint/criu/image"
)

// LendSockets changes the images in dir, a directory that Stage has filled, so that CRIU
// takes the sockets with the numbers in keys from descriptors that it inherits, each under its key
// (InheritFD), instead of making them. To CRIU they are then open regular files: those it
// takes from descriptors, and does not look at further.
func LendSockets(dir string, keys map[uint32]string) error {
	if len(keys) == 0 {
		return nil
	}
	err := rewriteImage(dir, "files.img", func(file image.Message) (image.Message, error) {
		id := uint32(file.Number(fileID))
		if file.Number(fileType) != typeInet || keys[id] == "" {
			return nil, nil
		}
		return regularFile(id, keys[id]), nil
	})
	if err != nil {
		return err
	}
	tables, err := filepath.Glob(filepath.Join(dir, "fdinfo-*.img"))
	if err != nil {
		return err
	}
	for _, path := range tables {
		err := rewriteImage(dir, filepath.Base(path), func(fd image.Message) (image.Message, error) {
			if fd.Number(fdType) != typeInet || keys[uint32(fd.Number(fdFile))] == "" {
				return nil, nil
			}
			fd.Set(fdType, typeRegular)
			return fd, nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// rewriteImage puts an image in the place of one in dir, with what change makes of each of its
// messages, nil for one that stays as it is. The old file, which may have other names, stays as
// it is, and is not replaced if nothing changes.
func rewriteImage(dir, name string, change func(image.Message) (image.Message, error)) error {
	path := filepath.Join(dir, name)
	data, err := image.ReadFile(path)
	var im *image.Image
	if err == nil {
		im, err = image.Split(data)
	}
	if err != nil {
		return image.Unusable(name, err)
	}
	changed := false
	for i, rec := range im.Records {
		m, err := image.Parse(rec)
		if err == nil {
			m, err = change(m)
		}
		if err != nil {
			return image.Unusable(name, err)
		}
		if m != nil {
			im.Records[i], changed = m.Encode(), true
		}
	}
	if !changed {
		return nil
	}
	if err := writeFile(path, im.Encode()); err != nil {
		return fmt.Errorf("stage images: %w", err)
	}
	return nil
}

// regularFile is a file_entry with a reg_file_entry (images/regfile.proto).
func regularFile(id uint32, name string) image.Message {
	const regFlags, regPosition, regOwner = 2, 3, 5
	var owner, reg, file image.Message
	for num := protowire.Number(1); num <= 5; num++ {
		owner.Set(num, 0)
	}
	reg.Set(regID, uint64(id))
	reg.Set(regFlags, unix.O_RDWR)
	reg.Set(regPosition, 0)
	reg.SetText(regOwner, owner.Encode())
	reg.SetText(regName, []byte("/"+name))
	reg.Set(regMount, protowire.EncodeZigZag(-1))
	file.Set(fileType, typeRegular)
	file.Set(fileID, uint64(id))
	file.SetText(fileRegular, reg.Encode())
	return file
}

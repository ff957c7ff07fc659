package criu

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd-snap/snap/checkpoint/criu/image"
)

// Numbers in a mnt_entry, and of the kinds of file systems (images/mnt.proto).
const (
	mountKind    = 1
	mountDevice  = 3
	mountOptions = 9
	mountName    = 14

	kindTmpfs = 5
	// kindAuto is what CRIU mounts by its name, and knows nothing of.
	kindAuto = 16
)

// tarBlock is the unit of an archive (POSIX ustar), and maxEmptyTar the length of one with a
// single header, as GNU tar writes it.
const (
	tarBlock    = 512
	maxEmptyTar = 20 * tarBlock
)

// DropEmptyTmpfs removes from the images in dir the archives of tmpfs mounts that hold no file,
// and has CRIU mount these as file systems that it does not know. It executes tar, and tar gzip, for
// each archive, which takes some milliseconds of each restore. An archive stays if owner or
// mode of the mount's root are not those that the mount's options give it. The time of its last
// change becomes that of the restore.
func DropEmptyTmpfs(dir string) error {
	if err := dropEmptyTmpfs(dir); err != nil {
		return fmt.Errorf("drop empty tmpfs images: %w", err)
	}
	return nil
}

func dropEmptyTmpfs(dir string) error {
	paths, err := filepath.Glob(filepath.Join(dir, "mountpoints-*.img"))
	if err != nil {
		return err
	}
	// By device: a file system may be mounted twice.
	empty := map[uint64]bool{}
	for _, path := range paths {
		err := rewriteImage(dir, filepath.Base(path), func(mount image.Message) (image.Message, error) {
			if mount.Number(mountKind) != kindTmpfs {
				return nil, nil
			}
			dev := mount.Number(mountDevice)
			if _, known := empty[dev]; !known {
				is, err := isEmptyTmpfs(filepath.Join(dir, tmpfsArchive(dev)), string(mount.Text(mountOptions)))
				if err != nil {
					return nil, err
				}
				empty[dev] = is
			}
			if !empty[dev] {
				return nil, nil
			}
			mount.Set(mountKind, kindAuto)
			mount.SetText(mountName, []byte("tmpfs"))
			return mount, nil
		})
		if err != nil {
			return err
		}
	}
	for dev, is := range empty {
		if !is {
			continue
		}
		if err := os.Remove(filepath.Join(dir, tmpfsArchive(dev))); err != nil {
			return err
		}
	}
	return nil
}

// tmpfsArchive is the name of the archive of a tmpfs.
func tmpfsArchive(dev uint64) string { return fmt.Sprintf("tmpfs-dev-%d.tar.gz.img", dev) }

// isEmptyTmpfs says whether the archive of a tmpfs holds nothing but a root as a new tmpfs with
// these options has it.
func isEmptyTmpfs(path, options string) (bool, error) {
	f, size, err := image.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil // an external mount
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	if size > maxEmptyTar {
		return false, nil
	}
	data, err := io.ReadAll(f)
	return err == nil && holdsRoot(data, options), err
}

// holdsRoot says whether an archive holds nothing but such a root (tmpfs(5)).
func holdsRoot(archive []byte, options string) bool {
	z, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		return false
	}
	tar, err := io.ReadAll(io.LimitReader(z, maxEmptyTar+1))
	if err != nil || len(tar) < tarBlock || len(tar) > maxEmptyTar {
		return false
	}
	head, rest := tar[:tarBlock], tar[tarBlock:]
	if len(bytes.Trim(rest, "\x00")) > 0 || string(head[257:262]) != "ustar" || head[156] != '5' || cString(head[:100]) != "./" {
		return false
	}
	root := map[string]int64{"mode": 0o1777, "uid": 0, "gid": 0}
	for opt := range strings.SplitSeq(options, ",") {
		key, value, _ := strings.Cut(opt, "=")
		if _, ok := root[key]; !ok {
			continue
		}
		base := 10
		if key == "mode" {
			base = 8
		}
		if root[key], err = strconv.ParseInt(value, base, 64); err != nil {
			return false
		}
	}
	mode, merr := octal(head[100:108])
	uid, uerr := octal(head[108:116])
	gid, gerr := octal(head[116:124])
	return errors.Join(merr, uerr, gerr) == nil && mode == root["mode"] && uid == root["uid"] && gid == root["gid"]
}

func cString(b []byte) string {
	text, _, _ := bytes.Cut(b, []byte{0})
	return string(text)
}

func octal(b []byte) (int64, error) { return strconv.ParseInt(strings.TrimSpace(cString(b)), 8, 64) }

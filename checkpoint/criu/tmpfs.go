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
)

// Numbers in a mnt_entry (images/mnt.proto).
const (
	mountDevice  = 3
	mountOptions = 9
)

// tarBlock is the unit of an archive (POSIX ustar), and maxEmptyTar the length of one with a
// single header, as GNU tar writes it.
const (
	tarBlock    = 512
	maxEmptyTar = 20 * tarBlock
)

// DropEmptyTmpfs removes from the images in dir the archives of tmpfs mounts that hold no file.
// CRIU executes tar, and tar gzip, for each archive that there is, which takes some milliseconds
// of each restore; where it finds none it leaves the new mount empty. An archive stays if
// owner or mode of the mount's root are not those that the mount's options give it. The time of
// its last change becomes that of the restore.
func DropEmptyTmpfs(dir string) error {
	if err := dropEmptyTmpfs(dir); err != nil {
		return fmt.Errorf("drop empty tmpfs images: %w", err)
	}
	return nil
}

func dropEmptyTmpfs(dir string) error {
	const prefix, suffix = "tmpfs-dev-", ".tar.gz.img"
	archives, err := filepath.Glob(filepath.Join(dir, prefix+"*"+suffix))
	if err != nil || len(archives) == 0 {
		return err
	}
	options, err := tmpfsOptions(dir)
	if err != nil {
		return err
	}
	for _, path := range archives {
		dev, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimPrefix(filepath.Base(path), prefix), suffix), 10, 32)
		if err != nil {
			continue
		}
		opts, known := options[dev]
		if !known {
			continue
		}
		data, err := readRegular(path, maxImage)
		if err != nil {
			return err
		}
		if !isEmptyTmpfs(data, opts) {
			continue
		}
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return nil
}

// tmpfsOptions returns the options of the mounts by their device, as CRIU names archives.
func tmpfsOptions(dir string) (map[uint64]string, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "mountpoints-*.img"))
	if err != nil {
		return nil, err
	}
	options := map[uint64]string{}
	for _, path := range paths {
		recs, err := records(dir, filepath.Base(path))
		if err != nil {
			return nil, err
		}
		for _, rec := range recs {
			fs, err := fields(rec)
			if err != nil {
				return nil, unusable(filepath.Base(path), err)
			}
			options[number(fs, mountDevice)] = string(text(fs, mountOptions))
		}
	}
	return options, nil
}

// isEmptyTmpfs says whether an archive holds nothing but a root as a new tmpfs with these
// options has it (tmpfs(5)).
func isEmptyTmpfs(archive []byte, options string) bool {
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
	for _, opt := range strings.Split(options, ",") {
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

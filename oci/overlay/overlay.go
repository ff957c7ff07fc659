// Package overlay finds the writable layer of a container in the mounts that make up its
// root file system, as containerd's overlayfs snapshotter gives them.
//
// Only the overlay file system keeps what a container wrote as a directory of its own,
// which a checkpoint can bring along. The package looks, and changes nothing.
package overlay

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// UpperDir returns the writable layer's directory of a mount of a type with
// options; "" if it is none of an overlay, or has none.
func UpperDir(fstype string, options []string) string {
	if fstype != "overlay" {
		return ""
	}
	for _, o := range options {
		if dir, ok := strings.CutPrefix(o, "upperdir="); ok {
			return dir
		}
	}
	return ""
}

// Fresh says that the writable layer in dir holds nothing yet: a checkpoint brings the
// layer that it was captured with, which must not meet another task's files. No
// directory, "", is never fresh.
func Fresh(dir string) (bool, error) {
	if dir == "" {
		return false, nil
	}
	f, err := os.Open(dir)
	if err != nil {
		return false, fmt.Errorf("look into the writable layer: %w", err)
	}
	defer f.Close()
	names, err := f.Readdirnames(1)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return len(names) == 0, err
}

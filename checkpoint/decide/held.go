package decide

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/oci/spec"
)

// Missing says which of the files that a captured program held on bind mounts and volumes
// the container's do not have as they were; "" for none. CRIU would fail for the first of them, in
// the middle of a restore. Of mounts that hooks or the runtime make nothing is known.
func Missing(oci *specs.Spec, held []checkpoint.HeldFile) string {
	for _, f := range held {
		source, ok := spec.BindSource(oci.Mounts, f.Mount)
		if !ok || !filepath.IsAbs(source) {
			continue
		}
		if why := differs(source, f); why != "" {
			return fmt.Sprintf("the program had %s of the mount %s (here %s) in use, %s: put it there as it was, or capture the program anew", f.Shown(), f.Mount, source, why)
		}
	}
	return ""
}

// differs says what is not as it was with a file below source; "" for nothing.
func differs(source string, f checkpoint.HeldFile) string {
	st, err := statBelow(source, strings.TrimPrefix(strings.TrimPrefix(f.Path, f.Mount), "/"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "and it is not there"
	case err != nil:
		return "and it cannot be looked at: " + err.Error()
	}
	mode := st.Sys().(*syscall.Stat_t).Mode
	switch {
	case mode&unix.S_IFMT != f.Mode&unix.S_IFMT:
		return "and it is of another kind now: a file, or a directory, in place of the other"
	case mode != f.Mode:
		return fmt.Sprintf("and its mode is %04o now, not %04o", mode&^unix.S_IFMT, f.Mode&^unix.S_IFMT)
	case f.Size >= 0 && st.Size() != f.Size:
		return fmt.Sprintf("and it has %d bytes now, not %d", st.Size(), f.Size)
	}
	return ""
}

// statBelow looks at a file without leaving source by a symbolic link.
func statBelow(source, name string) (fs.FileInfo, error) {
	if name == "" {
		return os.Stat(source)
	}
	root, err := os.OpenRoot(source)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return root.Stat(name)
}

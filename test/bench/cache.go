package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const dropCaches = "/proc/sys/vm/drop_caches"

// dropCache empties the page cache, as after the host's start: the whole of it, where we may
// (proc_sys_vm(5)), or else that of the node's files alone. It says in the results what it did.
func (b *bench) dropCache() error {
	unix.Sync()
	err := os.WriteFile(dropCaches, []byte("3"), 0)
	if err == nil {
		b.results.DroppedBy = "writing 3 to " + dropCaches + ": programs and libraries are read anew, too"
		return nil
	}
	b.results.DroppedBy = "posix_fadvise(POSIX_FADV_DONTNEED) on the files of the node, checkpoints included, because " + dropCaches + " cannot be written: programs stay in memory"
	return filepath.WalkDir(b.node.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil
		}
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("drop the page cache: %w", err)
		}
		defer f.Close()
		return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	})
}

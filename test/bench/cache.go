package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// atRest is how long a file of one block takes to the disk when that has nothing else to do.
	atRest = 10 * time.Millisecond
	// restTries is how often in a row, restTimeout how long it is waited for.
	restTries   = 5
	restTimeout = time.Minute
)

// rest waits until the disk has nothing left to do of what was written before: containerd waits for
// the disk at each start, so that one which follows at once would be measured with it. It
// does not wait for ever: a disk may always be slow.
func (b *bench) rest(ctx context.Context) error {
	if b.quick {
		return nil
	}
	unix.Sync()
	path := filepath.Join(b.dir, "rest")
	defer os.Remove(path)
	for end, quick := time.Now().Add(restTimeout), 0; quick < restTries && time.Now().Before(end); {
		began := time.Now()
		if err := writeThrough(path); err != nil {
			return fmt.Errorf("wait for the disk: %w", err)
		}
		quick++
		if time.Since(began) > atRest {
			quick = 0
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(atRest):
		}
	}
	return nil
}

// writeThrough writes a block to a file, and waits for the disk.
func writeThrough(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, 4096))
	return errors.Join(err, f.Sync(), f.Close())
}

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

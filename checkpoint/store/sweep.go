package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Sweep deletes what killed processes left behind: drafts and temporary files whose lock
// is free, what lies in the trash, and names, index and state that point to no entry. It
// returns how many things it deleted. What others are using it leaves alone, so it may
// run at any time.
func (s *Store) Sweep() (removed int, err error) {
	var errs []error
	for _, dir := range []string{tmpDir, draftsDir, trashDir} {
		n, err := s.sweepAbandoned(dir)
		removed += n
		errs = append(errs, err)
	}
	n, err := s.sweepPointers()
	removed += n
	errs = append(errs, err)
	n, err = s.sweepAttempts(time.Now())
	removed += n
	errs = append(errs, err)
	if err := errors.Join(errs...); err != nil {
		return removed, fmt.Errorf("sweep store %s: %w", s.root, err)
	}
	return removed, nil
}

func (s *Store) sweepAbandoned(dir string) (removed int, err error) {
	names, err := listDir(s.path(dir))
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, name := range names {
		ok, err := removeAbandoned(s.path(dir, name))
		errs = append(errs, err)
		if ok {
			removed++
		}
	}
	return removed, errors.Join(errs...)
}

// removeAbandoned deletes a file or directory if it can be locked, which means that
// its owner is dead, or has just created it and will notice.
func removeAbandoned(path string) (bool, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer unlock(f)
	if ok, err := tryLock(f, unix.LOCK_EX); !ok || err != nil {
		return false, err
	}
	if !isAt(f, path) {
		return false, nil // renamed into its place meanwhile
	}
	// A CRIU outlives the shim that was killed over it for a moment, and writes on.
	for end := time.Now().Add(stragglerTime); ; time.Sleep(stragglerTime / 20) {
		err := os.RemoveAll(path)
		if err == nil {
			return true, nil
		}
		if !errors.Is(err, unix.ENOTEMPTY) || time.Now().After(end) {
			return false, err
		}
	}
}

// stragglerTime is how long a sweep waits for who still writes to an abandoned directory.
const stragglerTime = time.Second

// sweepPointers deletes what points to no entry, under the registry lock: a publication
// writes its pointers before its entry.
func (s *Store) sweepPointers() (removed int, err error) {
	release, err := s.lockRegistry(context.Background())
	if err != nil {
		return 0, err
	}
	defer release()
	hexes, err := s.hexes()
	if err != nil {
		return 0, err
	}
	live := make(map[string]bool, len(hexes))
	for _, hex := range hexes {
		live[hex] = true
	}
	sw := pointerSweep{store: s, live: live}
	sw.names()
	sw.states()
	sw.index()
	return sw.removed, errors.Join(sw.errs...)
}

// pointerSweep collects what it deleted and what went wrong.
type pointerSweep struct {
	store   *Store
	live    map[string]bool
	removed int
	errs    []error
}

func (sw *pointerSweep) list(elem ...string) []string {
	names, err := listDir(sw.store.path(elem...))
	if err != nil {
		sw.errs = append(sw.errs, err)
	}
	return names
}

func (sw *pointerSweep) delete(elem ...string) {
	if err := remove(sw.store.path(elem...)); err != nil {
		sw.errs = append(sw.errs, err)
		return
	}
	sw.removed++
}

func (sw *pointerSweep) names() {
	for _, name := range sw.list(namesDir) {
		if holder, err := sw.store.holder(name); err == nil && holder == "" {
			sw.delete(namesDir, name)
		}
	}
}

func (sw *pointerSweep) states() {
	for _, name := range sw.list(stateDir) {
		if hex, _, _ := strings.Cut(name, "."); !sw.live[hex] {
			sw.delete(stateDir, name)
		}
	}
}

func (sw *pointerSweep) index() {
	for _, key := range sw.list(indexDir) {
		left := 0
		for _, hex := range sw.list(indexDir, key) {
			if sw.live[hex] {
				left++
				continue
			}
			sw.delete(indexDir, key, hex)
		}
		if left == 0 {
			sw.delete(indexDir, key)
		}
	}
}

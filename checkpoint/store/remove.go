package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
)

// Hold keeps a checkpoint from being removed, as long as the process lives and until
// release, which may be called more than once. Any number may hold one checkpoint.
// The error wraps checkpoint.ErrNotFound if it is not registered any more.
func (s *Store) Hold(digest string) (release func(), err error) {
	hex, err := parseDigest(digest)
	if err != nil {
		return nil, fmt.Errorf("hold checkpoint: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), lockWait)
	defer cancel()
	dir, err := s.openEntryDir(hex)
	if err != nil {
		return nil, fmt.Errorf("hold checkpoint: %w", err)
	}
	for pause := 100 * time.Microsecond; ; pause = min(2*pause, time.Millisecond) {
		ok, err := tryLock(dir, unix.LOCK_SH)
		switch {
		case err == nil && !isAt(dir, s.entryDir(hex)):
			// Whoever removes it keeps its lock until all is deleted: do not wait for that.
			err = notRegistered(hex)
		case ok:
			return sync.OnceFunc(func() { unlock(dir) }), nil
		}
		if err != nil {
			unlock(dir)
			return nil, fmt.Errorf("hold checkpoint: %w", err)
		}
		select {
		case <-ctx.Done():
			dir.Close()
			return nil, fmt.Errorf("hold checkpoint %s: wait for its lock: %w", digest, ctx.Err())
		case <-time.After(pause):
		}
	}
}

// Remove removes a checkpoint with its name and state. From the moment at which it is
// not registered any more no reader sees it; deleting its files takes longer. Tasks that
// run from its page file go on. Errors wrap checkpoint.ErrNotFound, or checkpoint.ErrInUse
// while someone holds it or it is pinned.
func (s *Store) Remove(digest string) error {
	hex, err := parseDigest(digest)
	if err != nil {
		return fmt.Errorf("remove checkpoint: %w", err)
	}
	trash, err := s.unregister(hex)
	if err != nil {
		return fmt.Errorf("remove checkpoint: %w", err)
	}
	defer unlock(trash.dir)
	if err := os.RemoveAll(trash.path); err != nil {
		return fmt.Errorf("delete files of removed checkpoint %s: %w", digest, err)
	}
	return nil
}

// discarded is a directory in the trash, locked by whoever is to delete it.
type discarded struct {
	dir  *os.File
	path string
}

// unregister takes an entry out of the registry, under the registry lock.
func (s *Store) unregister(hex string) (discarded, error) {
	release, err := s.lockRegistry(context.Background())
	if err != nil {
		return discarded{}, err
	}
	defer release()
	key := ""
	if dir, c, err := s.openEntry(hex); err == nil {
		key = c.IndexKey()
		dir.Close()
	}
	name := s.nameOf(hex)
	trash, err := s.moveToTrash(hex, true)
	if err != nil {
		return discarded{}, err
	}
	// All that points to the entry means nothing from here on. What remains of it
	// after an error is left to Sweep.
	if name != "" {
		os.Remove(s.path(namesDir, name))
	}
	if key != "" {
		os.Remove(s.path(indexDir, key, hex))
		os.Remove(s.path(indexDir, key)) // refused unless empty
	}
	os.Remove(s.statePath(hex))
	os.Remove(s.path(stateDir, hex+".name"))
	os.Remove(s.pinPath(hex))
	return trash, nil
}

// moveToTrash renames an entry away, which nobody may hold and whose state nobody may
// be writing. For good, it must not be pinned either. The caller holds the registry
// lock, and must unlock what is returned.
func (s *Store) moveToTrash(hex string, forGood bool) (discarded, error) {
	dir, err := s.openEntryDir(hex)
	if err != nil {
		return discarded{}, err
	}
	ok, err := tryLock(dir, unix.LOCK_EX)
	if err == nil && !ok {
		err = fmt.Errorf("%w: %s%s: a task is being restored from it or runs on its pages; try again when that is over",
			checkpoint.ErrInUse, digestPrefix, hex)
	}
	if err != nil {
		dir.Close()
		return discarded{}, err
	}
	trash := discarded{dir: dir, path: s.path(trashDir, hex+"-"+rand.Text())}
	if err := s.renameAway(hex, trash, forGood); err != nil {
		unlock(dir)
		return discarded{}, err
	}
	return trash, nil
}

func (s *Store) renameAway(hex string, trash discarded, forGood bool) error {
	manifest, _, err := openRegularAt(trash.dir, manifestName)
	switch {
	case err == nil:
		defer unlock(manifest)
		if err := lock(context.Background(), manifest, unix.LOCK_EX); err != nil {
			return err
		}
	case !errors.Is(err, os.ErrNotExist) && !errors.Is(err, errNotRegular):
		return err
	}
	if forGood && s.pinned(hex) { // under the lock that Pin takes
		return fmt.Errorf("%w: %s%s is pinned; \"snapctl unpin\" it first", checkpoint.ErrInUse, digestPrefix, hex)
	}
	if err := os.Rename(s.entryDir(hex), trash.path); err != nil {
		return err
	}
	// Nothing may be deleted before the rename is durable: a power cut must not
	// bring back half an entry.
	return errors.Join(syncDir(s.path(entriesDir)), syncDir(s.path(trashDir)))
}

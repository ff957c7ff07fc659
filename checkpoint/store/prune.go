package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/retain"
)

// Pruned is what became of a checkpoint that a budget was exceeded by.
type Pruned struct {
	retain.Removal
	// InUse says why it is still there; empty if it went.
	InUse string
}

// Prune removes what exceeds the limits, in retain.Select's order, and returns what went
// and what is still there because it is in use; something else goes in its place. With
// dryRun nothing is removed. Damaged checkpoints are left alone: nothing is known of
// them that could be judged.
//
// It may be killed at any moment, and run by many at once.
func (s *Store) Prune(ctx context.Context, l retain.Limits, now time.Time, dryRun bool) ([]Pruned, error) {
	var all []Pruned
	busy := map[string]Pruned{}
	for {
		entries, err := s.List()
		if err != nil {
			return all, fmt.Errorf("prune: %w", err)
		}
		if dryRun {
			all = nil // each round begins anew
		}
		again := false
		for _, r := range retain.Select(entries, l, now, func(e checkpoint.Entry) bool { _, ok := busy[e.Digest]; return ok }) {
			err := ctx.Err()
			if err == nil {
				err = s.pruneOne(r.Entry.Digest, dryRun)
			}
			if errors.Is(err, checkpoint.ErrInUse) {
				// What follows may have to go for another reason now.
				busy[r.Entry.Digest], again = Pruned{Removal: r, InUse: err.Error()}, true
				break
			}
			if err != nil && !errors.Is(err, checkpoint.ErrNotFound) { // another prune may be faster
				return all, fmt.Errorf("prune: %w", err)
			}
			if err == nil {
				all = append(all, Pruned{Removal: r})
			}
		}
		if !again {
			return append(all, slices.SortedFunc(maps.Values(busy), func(a, b Pruned) int {
				return cmp.Compare(a.Entry.Digest, b.Entry.Digest)
			})...), nil
		}
	}
}

func (s *Store) pruneOne(digest string, dryRun bool) error {
	if !dryRun {
		return s.Remove(digest)
	}
	hex, err := parseDigest(digest)
	if err != nil {
		return err
	}
	dir, err := s.openEntryDir(hex)
	if err != nil {
		return err
	}
	defer unlock(dir)
	if ok, err := tryLock(dir, unix.LOCK_EX); err != nil || !ok {
		return errors.Join(err, fmt.Errorf("%w: %s", checkpoint.ErrInUse, digest))
	}
	return nil
}

// Room returns the number of bytes that may still be written to the store's file
// system.
func (s *Store) Room() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(s.root, &st); err != nil {
		return 0, fmt.Errorf("ask for the room on the file system of %s: %w", s.root, err)
	}
	return int64(st.Bavail) * st.Bsize, nil
}

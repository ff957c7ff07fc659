package store

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint/tally"
)

const (
	tallyName = "tally.json"
	maxTally  = 256 << 10
)

// Count changes the node's tally. Unless durable, it does not wait for the disk: a
// power cut may take it back to what it was at the last durable change, or, on some
// file systems, to nothing, which those who read the counts take for a new beginning.
// No kill does.
func (s *Store) Count(durable bool, change func(*tally.Tally)) error {
	err := s.count(durable, change)
	if err != nil {
		return fmt.Errorf("count: %w", s.adviseSpace(err))
	}
	return nil
}

func (s *Store) count(durable bool, change func(*tally.Tally)) error {
	dir, err := openDir(s.path(tallyDir))
	if err != nil {
		return err
	}
	defer unlock(dir)
	if err := lock(context.Background(), dir, unix.LOCK_EX); err != nil {
		return err
	}
	t := s.Tally()
	change(&t)
	raw, err := t.Encode()
	if err != nil {
		return err
	}
	return s.replaceFile(s.path(tallyDir, tallyName), raw, durable)
}

// Tally returns the node's tally. One that is not there, or that a power cut has torn,
// is empty.
func (s *Store) Tally() tally.Tally {
	raw, err := readFile(s.path(tallyDir), tallyName, maxTally)
	if err != nil {
		return tally.Tally{}
	}
	t, err := tally.Decode(raw)
	if err != nil {
		return tally.Tally{}
	}
	return t
}

// CountPruned counts what a prune removed.
func (s *Store) CountPruned(pruned []Pruned) error {
	pruned = slices.DeleteFunc(slices.Clone(pruned), func(p Pruned) bool { return p.InUse != "" })
	if len(pruned) == 0 {
		return nil
	}
	return s.Count(true, func(t *tally.Tally) {
		for _, p := range pruned {
			t.AddPruned(p.Cause, p.Frees)
		}
	})
}

package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
)

const (
	maxState  = 64 << 10
	maxReason = 4096
)

// RecordFailure counts a failed restore of a checkpoint and returns what became of it;
// see checkpoint.State.Quarantined. The error wraps checkpoint.ErrNotFound if the
// checkpoint is not registered any more.
func (s *Store) RecordFailure(digest, reason string) (checkpoint.State, error) {
	state, err := s.updateState(digest, true, func(st *checkpoint.State) {
		st.Failures++
		st.LastFailure = boundText(reason, maxReason)
	})
	if err != nil {
		return checkpoint.State{}, fmt.Errorf("record failed restore: %w", err)
	}
	return state, nil
}

// Quarantine keeps a checkpoint that is known to be damaged from being chosen again, as
// so many failures would.
func (s *Store) Quarantine(digest, reason string) error {
	_, err := s.updateState(digest, true, func(st *checkpoint.State) {
		st.Failures = max(st.Failures, checkpoint.QuarantineAfter)
		st.LastFailure = boundText(reason, maxReason)
	})
	if err != nil {
		return fmt.Errorf("quarantine checkpoint: %w", err)
	}
	return nil
}

// RecordSuccess counts a successful restore of a checkpoint and forgets the failures
// before it. It is quick and does not wait for the disk: a power cut may undo it.
func (s *Store) RecordSuccess(digest string, at time.Time) error {
	_, err := s.updateState(digest, false, func(st *checkpoint.State) {
		st.Failures, st.LastFailure = 0, ""
		st.Restores++
		if at = at.UTC(); at.After(st.LastUsed) {
			st.LastUsed = at
		}
	})
	if err != nil {
		return fmt.Errorf("record restore: %w", err)
	}
	return nil
}

// Clear forgets a checkpoint's failures, so that it is chosen again.
func (s *Store) Clear(digest string) error {
	_, err := s.updateState(digest, true, func(st *checkpoint.State) {
		st.Failures, st.LastFailure = 0, ""
	})
	if err != nil {
		return fmt.Errorf("clear failures: %w", err)
	}
	return nil
}

// Pin keeps a checkpoint from being removed, until Unpin. When it returns, that is
// durable; no kill and no power cut undoes it. Unpinning what is not pinned is no error.
// The errors wrap checkpoint.ErrNotFound if the checkpoint is not registered any more.
func (s *Store) Pin(digest string) error {
	err := s.underState(digest, func(hex string) error { return s.replaceFile(s.pinPath(hex), nil, true) })
	if err != nil {
		return fmt.Errorf("pin checkpoint: %w", s.adviseSpace(err))
	}
	return nil
}

// Unpin lets a pinned checkpoint be removed again.
func (s *Store) Unpin(digest string) error {
	err := s.underState(digest, func(hex string) error {
		return errors.Join(remove(s.pinPath(hex)), syncDir(s.path(stateDir)))
	})
	if err != nil {
		return fmt.Errorf("unpin checkpoint: %w", err)
	}
	return nil
}

// pinPath is of a file that is there while the entry is pinned. It is not part of the
// rest of the state, which is written without waiting for the disk.
func (s *Store) pinPath(hex string) string { return s.path(stateDir, hex+".pin") }

func (s *Store) pinned(hex string) bool {
	_, err := os.Lstat(s.pinPath(hex))
	return err == nil
}

func (s *Store) statePath(hex string) string { return s.path(stateDir, hex+".json") }

// updateState changes an entry's state.
func (s *Store) updateState(digest string, durable bool, change func(*checkpoint.State)) (state checkpoint.State, err error) {
	err = s.underState(digest, func(hex string) error {
		state = s.readState(hex)
		change(&state)
		kept := state
		kept.Pinned = false // has a file of its own
		raw, err := json.Marshal(kept)
		if err != nil {
			return fmt.Errorf("encode state of %s: %w", digest, err)
		}
		if err := s.replaceFile(s.statePath(hex), raw, durable); err != nil {
			return fmt.Errorf("write state of %s: %w", digest, s.adviseSpace(err))
		}
		return nil
	})
	return state, err
}

// underState calls do under the lock on the entry's manifest, a file that lives as
// long as the entry and is never replaced.
func (s *Store) underState(digest string, do func(hex string) error) error {
	hex, err := parseDigest(digest)
	if err != nil {
		return err
	}
	dir, err := s.openEntryDir(hex)
	if err != nil {
		return err
	}
	defer dir.Close()
	manifest, _, err := openRegularAt(dir, manifestName)
	if err != nil {
		if !isAt(dir, s.entryDir(hex)) {
			return notRegistered(hex)
		}
		return damage(manifestName, err)
	}
	defer unlock(manifest)
	if err := lock(context.Background(), manifest, unix.LOCK_EX); err != nil {
		return err
	}
	if !isAt(dir, s.entryDir(hex)) {
		return notRegistered(hex) // state without an entry must not arise
	}
	return do(hex)
}

// readState reads an entry's state. One that is missing, or was torn by a power cut, is
// as good as new: the entry itself is whole, and its next failures will be counted.
func (s *Store) readState(hex string) checkpoint.State {
	var state checkpoint.State
	if raw, err := readFile(s.path(stateDir), hex+".json", maxState); err == nil {
		if st, err := decodeState(raw); err == nil {
			state = st
		}
	}
	state.Pinned = s.pinned(hex)
	return state
}

func decodeState(raw []byte) (checkpoint.State, error) {
	var st checkpoint.State
	if err := decodeJSON(raw, &st); err != nil {
		return checkpoint.State{}, fmt.Errorf("%w state: %w", checkpoint.ErrInvalid, err)
	}
	if st.Failures < 0 || st.Restores < 0 {
		return checkpoint.State{}, fmt.Errorf("%w state: a count is negative", checkpoint.ErrInvalid)
	}
	if len(st.LastFailure) > maxReason {
		return checkpoint.State{}, fmt.Errorf("%w state: the reason is longer than %d bytes", checkpoint.ErrInvalid, maxReason)
	}
	return st, nil
}

// boundText returns at most limit bytes of text, as UTF-8.
func boundText(text string, limit int) string {
	if len(text) > limit {
		text = text[:limit-len("…")] + "…"
	}
	return strings.ToValidUTF8(text, "")
}

package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
)

const (
	attemptName = "attempt.json"
	maxAttempt  = 64 << 10
	// attemptPause is the time between two looks at a lock that another shim holds for
	// as long as a capture takes.
	attemptPause = 50 * time.Millisecond
	// keepAttempts is how long failed attempts are remembered after they may be made again.
	keepAttempts = 7 * 24 * time.Hour
)

// CaptureTurn is the right to capture containers with one fingerprint by themselves:
// one shim of the node has it at a time, until it releases it or dies.
type CaptureTurn struct {
	store *Store
	path  string
	dir   *os.File
}

// TakeTurn waits, within ctx, for the turn of the fingerprint with the given key.
func (s *Store) TakeTurn(ctx context.Context, key string) (*CaptureTurn, error) {
	if !isHash(key) {
		return nil, fmt.Errorf("wait for the turn to capture: %w key %.80q: it is %d hexadecimal digits", checkpoint.ErrInvalid, key, hexLen)
	}
	path := s.path(capturesDir, key)
	for {
		dir, err := s.tryTurn(path)
		if err != nil {
			return nil, fmt.Errorf("wait for the turn to capture: %w", err)
		}
		if dir != nil {
			return &CaptureTurn{store: s, path: path, dir: dir}, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the turn to capture: %w", context.Cause(ctx))
		case <-time.After(attemptPause):
		}
	}
}

// tryTurn locks the directory at path; nil if another has it.
func (s *Store) tryTurn(path string) (*os.File, error) {
	if _, err := makeDir(path); err != nil {
		return nil, err
	}
	dir, err := openDir(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // released between the two
	}
	if err != nil {
		return nil, err
	}
	ok, err := tryLock(dir, unix.LOCK_EX)
	if err == nil && ok && isAt(dir, path) {
		return dir, nil
	}
	dir.Close()
	return nil, err
}

// Attempt returns what became of the last one; the zero value if it succeeded, or if
// there was none.
func (t *CaptureTurn) Attempt() checkpoint.Attempt {
	raw, err := readBounded(t.dir, attemptName, maxAttempt)
	if err != nil {
		return checkpoint.Attempt{}
	}
	a, err := decodeAttempt(raw)
	if err != nil {
		return checkpoint.Attempt{} // torn by a power cut: as good as none
	}
	return a
}

// Failed keeps what became of an attempt, for the next shim that has the turn.
func (t *CaptureTurn) Failed(a checkpoint.Attempt) error {
	a.Reason = boundText(a.Reason, maxReason)
	raw, err := json.Marshal(a)
	if err == nil {
		err = t.store.replaceFile(t.path+"/"+attemptName, raw, true)
	}
	if err != nil {
		return fmt.Errorf("keep the failed capture: %w", t.store.adviseSpace(err))
	}
	return nil
}

// Succeeded forgets the failures before.
func (t *CaptureTurn) Succeeded() error {
	if err := remove(t.path + "/" + attemptName); err != nil {
		return fmt.Errorf("forget failed captures: %w", err)
	}
	return nil
}

// Release ends the turn. Nothing remains unless a failure is to be remembered.
func (t *CaptureTurn) Release() {
	os.Remove(t.path) // refused unless empty
	unlock(t.dir)
}

func decodeAttempt(raw []byte) (checkpoint.Attempt, error) {
	var a checkpoint.Attempt
	if err := decodeJSON(raw, &a); err != nil {
		return checkpoint.Attempt{}, fmt.Errorf("%w attempt: %w", checkpoint.ErrInvalid, err)
	}
	if a.Failures < 0 || len(a.Reason) > maxReason {
		return checkpoint.Attempt{}, fmt.Errorf("%w attempt: its count or its reason is out of range", checkpoint.ErrInvalid)
	}
	return a, nil
}

// sweepAttempts forgets failures that nobody came back to, and turns of dead shims.
func (s *Store) sweepAttempts(now time.Time) (removed int, err error) {
	keys, err := listDir(s.path(capturesDir))
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, key := range keys {
		dir, err := openDir(s.path(capturesDir, key))
		if err != nil {
			continue // released meanwhile
		}
		t := CaptureTurn{store: s, path: s.path(capturesDir, key), dir: dir}
		ok, err := tryLock(dir, unix.LOCK_EX)
		if !ok || err != nil {
			dir.Close()
			continue
		}
		if a := t.Attempt(); a.Failures == 0 || now.Sub(a.NextTry) > keepAttempts {
			errs = append(errs, t.Succeeded())
			removed++
		}
		t.Release()
	}
	return removed, errors.Join(errs...)
}

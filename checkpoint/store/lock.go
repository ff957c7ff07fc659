package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// tryLock takes the flock how (unix.LOCK_SH or unix.LOCK_EX) on f if it is free.
func tryLock(f *os.File, how int) (bool, error) {
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EWOULDBLOCK):
			return false, nil
		default:
			return false, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
	}
}

// lock waits for the flock how on f, at most lockWait. It asks again and again
// because a blocking flock(2) heeds neither a context nor a deadline.
func lock(ctx context.Context, f *os.File, how int) error {
	deadline := fmt.Errorf("%w for %s: another process holds the lock", context.DeadlineExceeded, lockWait)
	ctx, cancel := context.WithTimeoutCause(ctx, lockWait, deadline)
	defer cancel()
	for pause := 100 * time.Microsecond; ; pause = min(2*pause, time.Millisecond) {
		if ok, err := tryLock(f, how); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the lock on %s: %w", f.Name(), context.Cause(ctx))
		case <-time.After(pause):
		}
	}
}

// unlock frees f's flock and closes f. Closing alone would not do: a child that
// another goroutine is just forking holds the same open file until it executes.
func unlock(f *os.File) {
	_ = unix.Flock(int(f.Fd()), unix.LOCK_UN) // fails only for a descriptor that is no descriptor
	f.Close()
}

// isAt says whether path still names the open file f: who waits for a lock may
// find, once it has it, that the thing was renamed away meanwhile.
func isAt(f *os.File, path string) bool {
	want, err := f.Stat()
	if err != nil {
		return false
	}
	have, err := os.Lstat(path)
	return err == nil && os.SameFile(want, have)
}

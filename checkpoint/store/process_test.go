package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
)

func childContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 30*time.Second)
}

// noSpace turns the error of a full disk into errOutOfSpace.
func noSpace(err error) error {
	if errors.Is(err, unix.ENOSPC) {
		return errOutOfSpace
	}
	return err
}

func withTmpfs(root, options string, do func() error) error {
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, options); err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	return errors.Join(do(), unix.Unmount(root, 0))
}

// fillUp writes to path until there is no room left.
func fillUp(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		if _, err := f.Write(make([]byte, 4096)); err != nil {
			if errors.Is(err, unix.ENOSPC) {
				return nil
			}
			return err
		}
	}
}

func privateMounts(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
}

func TestFullDisk(t *testing.T) {
	for _, part := range []string{"space", "space-start"} {
		t.Run(part, func(t *testing.T) {
			c := startChild(t, part, t.TempDir(), privateMounts)
			c.release()
			c.wait(t)
		})
	}
}

func TestOneProcessWinsAName(t *testing.T) {
	s := newStore(t)
	var cs []*child
	for range 4 {
		c := startChild(t, "name", s.Root())
		c.line(t)
		cs = append(cs, c)
	}
	for _, c := range cs {
		c.release()
	}
	won := 0
	for _, c := range cs {
		if c.line(t) == "won" {
			won++
		}
		c.wait(t)
	}
	if won != 1 {
		t.Errorf("%d processes got the name", won)
	}
	assertClean(t, s, 1)
}

func TestProcessesCountEveryFailure(t *testing.T) {
	s := newStore(t)
	e := mustRegister(t, s, testMeta("x", testTime), CommitOptions{})
	var cs []*child
	for range 3 {
		c := startChild(t, "fail", s.Root())
		c.line(t)
		cs = append(cs, c)
	}
	for _, c := range cs {
		c.release()
	}
	for _, c := range cs {
		c.wait(t)
	}
	got, err := s.Resolve(e.Digest)
	if err != nil || got.State.Failures != 150 || !got.State.Quarantined() {
		t.Errorf("state %+v, %v; want 150 failures", got.State, err)
	}
	assertClean(t, s, 1)
}

func TestHoldOfAnotherProcess(t *testing.T) {
	s := newStore(t)
	e := mustRegister(t, s, testMeta("x", testTime), CommitOptions{})
	a, b := startChild(t, "hold", s.Root()), startChild(t, "hold", s.Root())
	a.line(t)
	b.line(t)
	if err := s.Remove(e.Digest); !errors.Is(err, checkpoint.ErrInUse) {
		t.Errorf("Remove while two hold it: %v", err)
	}
	a.kill(t)
	if err := s.Remove(e.Digest); !errors.Is(err, checkpoint.ErrInUse) {
		t.Errorf("Remove while one holds it: %v", err)
	}
	b.kill(t)
	if err := s.Remove(e.Digest); err != nil {
		t.Errorf("Remove after the holders died: %v", err)
	}
	assertClean(t, s, 0)
}

func TestSweepSparesLiveDrafts(t *testing.T) {
	s := newStore(t)
	mine := newDraft(t, s)
	c := startChild(t, "draft", s.Root())
	theirs := c.line(t)
	if n, err := s.Sweep(); n != 0 || err != nil {
		t.Errorf("Sweep = %d, %v; both drafts have an owner", n, err)
	}
	c.kill(t)
	if n, err := s.Sweep(); n != 1 || err != nil {
		t.Errorf("Sweep = %d, %v; want the dead process's draft", n, err)
	}
	if _, err := os.Stat(theirs); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("abandoned draft: %v", err)
	}
	if _, err := mine.Commit(t.Context(), testMeta("x", testTime), CommitOptions{}); err != nil {
		t.Error(err)
	}
	assertClean(t, s, 1)
}

// TestKilledAnywhere kills a process that registers and removes checkpoints, again and
// again, each time a little later after one was registered, while readers look on.
func TestKilledAnywhere(t *testing.T) {
	s := newStore(t)
	key := checkpoint.Fingerprint{"args": "churn"}.Key()
	for round := range 40 {
		c := startChild(t, "churn", s.Root())
		c.line(t)
		watch(t, s, key, time.Duration(round)*250*time.Microsecond)
		c.kill(t)

		entries := checkWhole(t, s)
		if _, err := s.Sweep(); err != nil {
			t.Fatalf("round %d: Sweep: %v", round, err)
		}
		assertClean(t, s, len(entries))
		if found, err := s.Lookup(key); err != nil || len(found) != len(entries) {
			t.Fatalf("round %d: %d entries, %d of them are indexed, %v", round, len(entries), len(found), err)
		}
		if n, err := s.Sweep(); n != 0 || err != nil {
			t.Fatalf("round %d: Sweep once more = %d, %v", round, n, err)
		}
		if t.Failed() {
			t.Fatalf("round %d", round)
		}
		for _, e := range entries {
			if err := s.Remove(e.Digest); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
		}
	}
}

// watch reads the store for a while, and never may see half an entry.
func watch(t *testing.T, s *Store, key string, d time.Duration) {
	t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		entries, err := s.Lookup(key)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if err := s.VerifyMetadata(e); err != nil && !errors.Is(err, checkpoint.ErrNotFound) && s.registered(e.Digest[7:]) {
				t.Errorf("half an entry is visible: %v", err)
			}
		}
	}
}

// checkWhole verifies every entry in full, whether a reader sees it or not.
func checkWhole(t *testing.T, s *Store) []checkpoint.Entry {
	t.Helper()
	if damaged, err := s.Damaged(); len(damaged) > 0 || err != nil {
		t.Fatalf("damaged: %v, %v", damaged, err)
	}
	entries, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := s.Verify(t.Context(), e, nil); err != nil {
			t.Error(err)
		}
	}
	return entries
}

func TestManyAtOnce(t *testing.T) {
	s := newStore(t)
	shared := mustRegister(t, s, testMeta("shared", testTime), CommitOptions{Name: "shared"})
	key := shared.Checkpoint.Fingerprint.Key()
	var wg sync.WaitGroup
	run := func(do func(i int) error) {
		wg.Go(func() {
			for i := range 10 {
				if err := do(i); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for worker := range 4 {
		run(func(i int) error {
			e, err := register(s, testMeta("shared", testTime.Add(time.Duration(i))), CommitOptions{Name: fmt.Sprintf("w%d", worker), Replace: true})
			if err != nil {
				return err
			}
			return s.Remove(e.Digest)
		})
		run(func(int) error { _, err := s.Sweep(); return err })
		run(func(int) error { return s.RecordSuccess(shared.Digest, testTime) })
		run(func(i int) error { return s.PutStart(testStart("default", fmt.Sprintf("c%d-%d", worker, i))) })
		run(func(int) error {
			release, err := s.Hold(shared.Digest)
			if err != nil {
				return err
			}
			defer release()
			return s.VerifyMetadata(shared)
		})
		run(func(int) error {
			entries, err := s.Lookup(key)
			if err == nil && len(entries) == 0 {
				err = errors.New("the shared entry is not found")
			}
			return err
		})
	}
	wg.Wait()
	got, err := s.Resolve("shared")
	if err != nil || got.State.Restores != 40 {
		t.Errorf("state %+v, %v; want 40 restores", got.State, err)
	}
	if starts, err := s.Starts(); len(starts) != 40 || err != nil {
		t.Errorf("%d starts, %v", len(starts), err)
	}
	assertClean(t, s, 1)
}

func TestLockWaitEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	a, errA := os.Open(path)
	b, errB := os.Open(path)
	if err := errors.Join(errA, errB); err != nil {
		t.Fatal(err)
	}
	defer unlock(b)
	if err := lock(t.Context(), a, unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	if err := lock(ctx, b, unix.LOCK_SH); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), path) {
		t.Errorf("lock: %v", err)
	}
	unlock(a)
	if err := lock(t.Context(), b, unix.LOCK_SH); err != nil {
		t.Error(err)
	}
}

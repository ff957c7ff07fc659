package store

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd-snap/snap/checkpoint"
)

// TestCommitUndoes lets the rename fail, after all that comes before it has been done.
func TestCommitUndoes(t *testing.T) {
	meta := testMeta("new", testTime.Add(time.Hour))
	digest := mustRegister(t, newStore(t), meta, CommitOptions{}).Digest // what it will be

	for _, tc := range []struct {
		name string
		opts CommitOptions
	}{
		{"without a name", CommitOptions{}},
		{"with a new name", CommitOptions{Name: "new"}},
		{"with the name of another", CommitOptions{Name: "old", Replace: true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStore(t)
			old := mustRegister(t, s, testMeta("old", testTime), CommitOptions{Name: "old"})
			obstacle := s.entryDir(digest[7:])
			if err := os.WriteFile(obstacle, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			d := newDraft(t, s)
			if err := fill(d); err != nil {
				t.Fatal(err)
			}
			if _, err := d.Commit(t.Context(), meta, tc.opts); err == nil {
				t.Fatal("Commit: no error")
			}
			if got, err := s.Resolve("old"); err != nil || got.Digest != old.Digest || got.Name != "old" {
				t.Errorf("the other's name: %+v, %v", got, err)
			}
			if tc.opts.Name == "new" {
				if err := s.CheckName("new"); err != nil {
					t.Error(err)
				}
			}
			if err := os.Remove(obstacle); err != nil {
				t.Fatal(err)
			}
			for dir, want := range map[string]int{tmpDir: 0, indexDir: 1, namesDir: 1, stateDir: 1, draftsDir: 1} {
				if names, err := listDir(s.path(dir)); len(names) != want || err != nil {
					t.Errorf("%s holds %q, %v; want %d", dir, names, err, want)
				}
			}
			e, err := d.Commit(t.Context(), meta, tc.opts)
			if err != nil || e.Digest != digest || e.Name != tc.opts.Name {
				t.Errorf("Commit again: %q %q, %v", e.Digest, e.Name, err)
			}
			assertClean(t, s, 2)
		})
	}
}

// TestSweepWhileCreating has drafts and temporary files created while others look for
// abandoned ones: those that have no lock yet may be deleted, and then are made anew.
func TestSweepWhileCreating(t *testing.T) {
	s := newStore(t)
	e := mustRegister(t, s, testMeta("x", testTime), CommitOptions{})
	var done atomic.Bool
	var sweepers, creators sync.WaitGroup
	for range 2 {
		sweepers.Go(func() {
			for !done.Load() {
				for _, dir := range []string{draftsDir, tmpDir} {
					if _, err := s.sweepAbandoned(dir); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	for range 4 {
		creators.Go(func() {
			for range 200 {
				d, err := s.NewDraft()
				if err != nil {
					t.Error(err)
					return
				}
				if err := errors.Join(fill(d), s.RecordSuccess(e.Digest, testTime), d.Discard()); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	creators.Wait()
	done.Store(true)
	sweepers.Wait()
	want := checkpoint.State{Restores: 800, LastUsed: testTime}
	if got, err := s.Resolve(e.Digest); err != nil || got.State != want {
		t.Errorf("state %+v, %v; want %+v", got.State, err, want)
	}
	assertClean(t, s, 1)
}

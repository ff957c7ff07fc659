package store

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/retain"
)

// pruneTime is later than any capture of these tests.
var pruneTime = testTime.Add(24 * time.Hour)

func mustResolve(t *testing.T, s *Store, ref string) checkpoint.Entry {
	t.Helper()
	e, err := s.Resolve(ref)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestPin(t *testing.T) {
	s := newStore(t)
	e := mustRegister(t, s, testMeta("x", testTime), CommitOptions{Name: "x"})
	for range 2 {
		if err := s.Pin(e.Digest); err != nil {
			t.Fatal(err)
		}
	}
	if got := mustResolve(t, s, "x"); !got.State.Pinned {
		t.Error("it is not pinned")
	}
	if err := s.Remove(e.Digest); !errors.Is(err, checkpoint.ErrInUse) || !strings.Contains(err.Error(), "unpin") {
		t.Errorf("remove: %v", err)
	}
	// What else is written of the state leaves the pin alone, and the other way round.
	if _, err := s.RecordFailure(e.Digest, "it failed"); err != nil {
		t.Fatal(err)
	}
	if err := s.RecordSuccess(e.Digest, testTime); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.statePath(e.Digest[7:]), nil, 0o600); err != nil { // as a power cut may leave it
		t.Fatal(err)
	}
	if got := mustResolve(t, s, "x"); !got.State.Pinned {
		t.Error("the pin is lost with the state")
	}
	// Nor does the same checkpoint, registered again in place of a damaged one, lose it.
	if err := os.Remove(s.entryDir(e.Digest[7:]) + "/images/inventory.img"); err != nil {
		t.Fatal(err)
	}
	if again, err := register(s, e.Checkpoint, CommitOptions{}); err != nil || again.Digest != e.Digest || !again.State.Pinned {
		t.Errorf("registered again: %+v, %v", again.State, err)
	}
	for range 2 {
		if err := s.Unpin(e.Digest); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Remove(e.Digest); err != nil {
		t.Fatal(err)
	}
	if err := s.Pin(e.Digest); !errors.Is(err, checkpoint.ErrNotFound) {
		t.Errorf("pin what is gone: %v", err)
	}
	if err := s.Unpin("nonsense"); !errors.Is(err, checkpoint.ErrInvalid) {
		t.Errorf("unpin nonsense: %v", err)
	}
	if _, err := s.Sweep(); err != nil { // the damaged one
		t.Fatal(err)
	}
	assertClean(t, s, 0)
}

func TestPrune(t *testing.T) {
	s := newStore(t)
	var entries []checkpoint.Entry
	for i := range 6 {
		entries = append(entries, mustRegister(t, s, testMeta("x", testTime.Add(time.Duration(i)*time.Second)), CommitOptions{}))
	}
	if err := s.Pin(entries[0].Digest); err != nil {
		t.Fatal(err)
	}
	release, err := s.Hold(entries[1].Digest)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	size := entries[0].Checkpoint.Bytes()
	l := retain.Limits{MaxBytes: 4 * size}
	// The oldest but one is in use: the two after it go in its place.
	check := func(dryRun bool) {
		t.Helper()
		got, err := s.Prune(t.Context(), l, pruneTime, dryRun)
		if err != nil || len(got) != 3 ||
			got[0].Entry.Digest != entries[2].Digest || got[0].InUse != "" || got[0].Cause != retain.Bytes ||
			got[1].Entry.Digest != entries[3].Digest || got[1].InUse != "" ||
			got[2].Entry.Digest != entries[1].Digest || !strings.Contains(got[2].InUse, "in use") {
			t.Fatalf("dry run %v: %+v, %v", dryRun, got, err)
		}
	}
	check(true)
	if all, err := s.List(); err != nil || len(all) != 6 {
		t.Fatalf("a dry run left %d, %v", len(all), err)
	}
	check(false)
	assertClean(t, s, 4)
	if got, err := s.Prune(t.Context(), l, pruneTime, false); err != nil || len(got) != 0 {
		t.Errorf("once more: %+v, %v", got, err)
	}
	release()
	if got, err := s.Prune(t.Context(), retain.Limits{MaxAge: time.Hour}, pruneTime, false); err != nil || len(got) != 3 {
		t.Errorf("all but the pinned: %+v, %v", got, err)
	}
	assertClean(t, s, 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	mustRegister(t, s, testMeta("x", testTime), CommitOptions{})
	if _, err := s.Prune(ctx, retain.Limits{MaxAge: time.Hour}, pruneTime, false); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestRoom(t *testing.T) {
	s := newStore(t)
	if room, err := s.Room(); err != nil || room <= 0 {
		t.Errorf("%d, %v", room, err)
	}
}

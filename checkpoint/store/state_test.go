package store

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/containerd-snap/snap/checkpoint"
)

func TestState(t *testing.T) {
	s := newStore(t)
	e := mustRegister(t, s, testMeta("x", testTime), CommitOptions{})
	want := func(want checkpoint.State) {
		t.Helper()
		got, err := s.Resolve(e.Digest)
		if err != nil || got.State != want {
			t.Errorf("state %+v, %v; want %+v", got.State, err, want)
		}
	}
	want(checkpoint.State{})
	for i := 1; i <= checkpoint.QuarantineAfter; i++ {
		st, err := s.RecordFailure(e.Digest, fmt.Sprintf("reason %d", i))
		if err != nil || st.Failures != i || st.Quarantined() != (i == checkpoint.QuarantineAfter) {
			t.Errorf("failure %d: %+v, %v", i, st, err)
		}
	}
	want(checkpoint.State{Failures: 3, LastFailure: "reason 3"})
	if err := s.RecordSuccess(e.Digest, testTime.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	want(checkpoint.State{Restores: 1, LastUsed: testTime.Add(time.Hour)})
	if err := s.RecordSuccess(e.Digest, testTime); err != nil { // that one began earlier
		t.Fatal(err)
	}
	want(checkpoint.State{Restores: 2, LastUsed: testTime.Add(time.Hour)})
	if _, err := s.RecordFailure(e.Digest, strings.Repeat("ä", maxReason)+"\xff"); err != nil {
		t.Fatal(err)
	}
	got, err := s.Resolve(e.Digest)
	if reason := got.State.LastFailure; err != nil || len(reason) > maxReason || len(reason) < maxReason-8 || !utf8.ValidString(reason) {
		t.Errorf("long reason: %d bytes, %v", len(reason), err)
	}
	if err := s.Clear(e.Digest); err != nil {
		t.Fatal(err)
	}
	want(checkpoint.State{Restores: 2, LastUsed: testTime.Add(time.Hour)})
}

func TestTornStateIsNew(t *testing.T) {
	s := newStore(t)
	e := mustRegister(t, s, testMeta("x", testTime), CommitOptions{})
	for _, content := range []string{"", "{", `{"failures":-1}`, "[]", `{"failures":1}{}`, strings.Repeat(" ", maxState+1)} {
		if err := os.WriteFile(s.statePath(e.Digest[7:]), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Resolve(e.Digest); err != nil || got.State != (checkpoint.State{}) {
			t.Errorf("%.20q: state %+v, %v", content, got.State, err)
		}
	}
	if st, err := s.RecordFailure(e.Digest, "x"); err != nil || st.Failures != 1 {
		t.Errorf("RecordFailure: %+v, %v", st, err)
	}
}

func TestHoldAndRemove(t *testing.T) {
	s := newStore(t)
	e := mustRegister(t, s, testMeta("x", testTime), CommitOptions{Name: "web"})
	if _, err := s.RecordFailure(e.Digest, "x"); err != nil {
		t.Fatal(err)
	}
	first, err := s.Hold(e.Digest)
	if err != nil {
		t.Fatal(err)
	}
	second, err := s.Hold(e.Digest)
	if err != nil {
		t.Fatal(err)
	}
	first()
	first()
	if err := s.Remove(e.Digest); !errors.Is(err, checkpoint.ErrInUse) {
		t.Errorf("Remove while held: %v", err)
	}
	if got, err := s.Resolve("web"); err != nil || got.State.Failures != 1 {
		t.Errorf("after a refused Remove: %+v, %v", got, err)
	}
	second()
	if err := s.Remove(e.Digest); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(e.Digest); !errors.Is(err, checkpoint.ErrNotFound) {
		t.Errorf("Remove again: %v", err)
	}
	if _, err := s.Hold(e.Digest); !errors.Is(err, checkpoint.ErrNotFound) {
		t.Errorf("Hold after Remove: %v", err)
	}
	assertClean(t, s, 0)
}

// TestStateOfRemovedEntry is the race that a lock alone does not settle: the entry is
// renamed away while someone waits to write its state.
func TestStateOfRemovedEntry(t *testing.T) {
	for range 5 {
		s := newStore(t)
		e := mustRegister(t, s, testMeta("x", testTime), CommitOptions{})
		done := make(chan error, 4)
		for range cap(done) {
			go func() {
				var err error
				for err == nil {
					_, err = s.RecordFailure(e.Digest, "x")
				}
				done <- err
			}()
		}
		if err := s.Remove(e.Digest); err != nil {
			t.Error(err)
		}
		for range cap(done) {
			if err := <-done; !errors.Is(err, checkpoint.ErrNotFound) {
				t.Errorf("RecordFailure: %v", err)
			}
		}
		assertClean(t, s, 0)
	}
}

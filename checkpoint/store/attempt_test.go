package store

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/containerd-snap/snap/checkpoint"
)

var turnKey = strings.Repeat("ab", 32)

func takeTurn(t *testing.T, s *Store) *CaptureTurn {
	t.Helper()
	turn, err := s.TakeTurn(t.Context(), turnKey)
	if err != nil {
		t.Fatal(err)
	}
	return turn
}

func TestOneTurnAtATime(t *testing.T) {
	s := newStore(t)
	turn := takeTurn(t, s)
	other, err := s.TakeTurn(t.Context(), strings.Repeat("cd", 32))
	if err != nil {
		t.Fatal("the turn of another fingerprint:", err)
	}
	other.Release()
	ctx, cancel := context.WithTimeout(t.Context(), 3*attemptPause)
	defer cancel()
	if _, err := s.TakeTurn(ctx, turnKey); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second turn: %v", err)
	}
	next := make(chan error, 1)
	go func() {
		turn, err := s.TakeTurn(t.Context(), turnKey)
		if err == nil {
			turn.Release()
		}
		next <- err
	}()
	turn.Release()
	if err := <-next; err != nil {
		t.Error("after the release:", err)
	}
	if names, err := listDir(s.path(capturesDir)); len(names) != 0 || err != nil {
		t.Errorf("turns left %q (%v)", names, err)
	}
	if _, err := s.TakeTurn(t.Context(), "../x"); !errors.Is(err, checkpoint.ErrInvalid) {
		t.Errorf("a key that is none: %v", err)
	}
}

func TestFailedAttemptsAreRemembered(t *testing.T) {
	s := newStore(t)
	turn := takeTurn(t, s)
	if a := turn.Attempt(); a != (checkpoint.Attempt{}) {
		t.Errorf("before any: %+v", a)
	}
	want := checkpoint.Attempt{Failures: 2, Reason: "it uses io_uring", At: testTime, NextTry: testTime.Add(time.Hour)}
	if err := turn.Failed(want); err != nil {
		t.Fatal(err)
	}
	turn.Release()
	turn = takeTurn(t, s)
	if a := turn.Attempt(); a != want {
		t.Errorf("remembered is %+v, want %+v", a, want)
	}
	if n, err := s.sweepAttempts(testTime.Add(1000 * time.Hour)); n != 0 || err != nil {
		t.Errorf("%d attempts swept under their owner (%v)", n, err)
	}
	turn.Release()
	if n, err := s.sweepAttempts(want.NextTry.Add(keepAttempts)); n != 0 || err != nil {
		t.Errorf("%d swept that are to be remembered (%v)", n, err)
	}
	if n, err := s.sweepAttempts(want.NextTry.Add(keepAttempts + 1)); n != 1 || err != nil {
		t.Errorf("%d swept that nobody came back to (%v)", n, err)
	}
	turn = takeTurn(t, s)
	if err := turn.Failed(want); err != nil {
		t.Fatal(err)
	}
	if err := turn.Succeeded(); err != nil {
		t.Fatal(err)
	}
	turn.Release()
	if names, err := listDir(s.path(capturesDir)); len(names) != 0 || err != nil {
		t.Errorf("a success left %q (%v)", names, err)
	}
}

func TestATornAttemptIsNone(t *testing.T) {
	s := newStore(t)
	turn := takeTurn(t, s)
	defer turn.Release()
	if err := os.WriteFile(turn.path+"/"+attemptName, []byte(`{"failures":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if a := turn.Attempt(); a != (checkpoint.Attempt{}) {
		t.Errorf("%+v", a)
	}
}

func FuzzAttempt(f *testing.F) {
	f.Add([]byte(`{"failures":2,"reason":"x","at":"2026-03-01T12:00:00Z","nextTry":"2026-03-01T13:00:00Z"}`))
	f.Add([]byte(`{"failures":-1}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, err := decodeAttempt(raw)
		if err != nil && (!errors.Is(err, checkpoint.ErrInvalid) || a != (checkpoint.Attempt{})) {
			t.Fatalf("%+v, %v", a, err)
		}
		if a.Failures < 0 || len(a.Reason) > maxReason {
			t.Fatalf("accepted %+v", a)
		}
	})
}

package measure

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestPoll(t *testing.T) {
	n := 0
	if err := Poll(t.Context(), func() (bool, error) { n++; return n == 3, nil }); err != nil || n != 3 {
		t.Errorf("polled %d times, error %v", n, err)
	}
	broken := errors.New("broken")
	if err := Poll(t.Context(), func() (bool, error) { return false, broken }); !errors.Is(err, broken) {
		t.Errorf("error %v, want %v", err, broken)
	}
	cause := errors.New("the command failed")
	ctx, cancel := context.WithCancelCause(t.Context())
	err := Poll(ctx, func() (bool, error) { cancel(cause); return false, ctx.Err() })
	if !errors.Is(err, cause) {
		t.Errorf("error %v, want %v", err, cause)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Millisecond)
	defer stop()
	if err := Poll(ctx, func() (bool, error) { return false, nil }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want that the deadline passed", err)
	}
}

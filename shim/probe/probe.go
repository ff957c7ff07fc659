// Package probe finds out whether a running program is ready to serve, and warms it up.
//
// It only asks. It asks again until the answer is yes or the time is over, at first
// often, then less and less. It has no locks; what a Target does must be safe to
// call while the task runs, is captured or ends.
package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/containerd-snap/snap/checkpoint/ready"
)

// Target is the program that is asked.
type Target interface {
	// PID is the init's, PIDs are those of all its processes.
	PID() int
	PIDs() ([]int, error)
	// Dial connects to a TCP address as a process of the container would.
	Dial(ctx context.Context, address string) (net.Conn, error)
	// Run executes a command in the container. The error says with which status it
	// ended, if not with 0.
	Run(ctx context.Context, args []string) error
	// Output watches what it prints; nil if nobody asked for that when the task was created.
	Output() *Output
}

const (
	// attemptTimeout bounds one question.
	attemptTimeout = 10 * time.Second
	// The pauses between two questions.
	firstPause   = 10 * time.Millisecond
	longestPause = time.Second
)

// Wait asks until the program is ready. The error says what the last answer was.
func Wait(ctx context.Context, t Target, p ready.Probe) error {
	if p.Kind == ready.Delay {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", p, context.Cause(ctx))
		case <-time.After(p.After):
			return nil
		}
	}
	var last error
	for pause := firstPause; ; pause = min(pause*3/2, longestPause) {
		attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
		err := ask(attempt, t, p)
		cancel()
		if err == nil {
			return nil
		}
		// That the time was over in the middle of a question says less than the answer before.
		if last == nil || !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, context.DeadlineExceeded) {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w: %w", p, context.Cause(ctx), last)
		case <-time.After(pause):
		}
	}
}

// ask asks once.
func ask(ctx context.Context, t Target, p ready.Probe) error {
	switch p.Kind {
	case ready.Listening:
		return listening(t)
	case ready.TCP:
		conn, err := t.Dial(ctx, p.Address)
		if err != nil {
			return err
		}
		return conn.Close()
	case ready.HTTP:
		return get(ctx, t, p.Text)
	case ready.Exec:
		args, err := ready.Words(p.Text)
		if err != nil {
			return err
		}
		return t.Run(ctx, args)
	case ready.Log:
		return t.Output().wait(ctx)
	case ready.File:
		return exists(t.PID(), p.Text)
	}
	return fmt.Errorf("there is no probe %q", p.Kind)
}

// Warm asks for the page again and again. It counts what answers: a program that
// answers with an error has been warmed up as well, one that does not answer has not.
func Warm(ctx context.Context, t Target, w ready.Warm) error {
	for n := range w.Times {
		attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
		err := get(attempt, t, w.URL)
		cancel()
		var status statusError
		if err != nil && !errors.As(err, &status) {
			return fmt.Errorf("warm up, request %d of %d: %w", n+1, w.Times, err)
		}
	}
	return nil
}

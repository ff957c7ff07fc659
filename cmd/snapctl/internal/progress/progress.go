// Package progress shows on a terminal how far long work is: one line, drawn
// anew several times a second, that is gone when the work ends.
//
// Nothing is drawn in the first second, so that quick work leaves no flicker.
// The line is drawn by one goroutine at a time; there are no locks.
package progress

import (
	"context"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// delay is how long work may take without a word.
	delay = time.Second
	// interval is the time between two drawings.
	interval = 200 * time.Millisecond
	// erase goes to the beginning of the line and clears it.
	erase = "\r\x1b[K"
)

// IsTerminal says whether f is a terminal.
func IsTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// Show draws what status returns until the function that it returns is called,
// which waits until the line is gone. status is given the time since Show was called, is
// called by another goroutine, and must return one short line. A terminal of
// nil stands for none: nothing is shown then.
func Show(terminal io.Writer, status func(elapsed time.Duration) string) (stop func()) {
	if terminal == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		draw(ctx, terminal, status)
	}()
	return func() {
		cancel()
		<-done
	}
}

func draw(ctx context.Context, terminal io.Writer, status func(time.Duration) string) {
	begin := time.Now()
	select {
	case <-ctx.Done():
		return
	case <-time.After(delay):
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		io.WriteString(terminal, erase+status(time.Since(begin)))
		select {
		case <-ctx.Done():
			io.WriteString(terminal, erase)
			return
		case <-tick.C:
		}
	}
}

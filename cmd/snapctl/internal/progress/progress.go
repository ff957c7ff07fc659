// Package progress shows how far long work is: on a terminal by one line, drawn anew
// several times a second, that is gone when the work ends; elsewhere by one line that
// says what is going on.
//
// Nothing is shown in the first second, so that quick work leaves no flicker.
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

// Output is where progress is shown.
type Output struct {
	// Terminal gets the line that is drawn anew; nil for no terminal.
	Terminal io.Writer
	// Plain gets the one line where there is no terminal; nil for nothing.
	Plain io.Writer
}

// Show shows what status returns until the function that it returns is called,
// which waits until the line is gone. status is given the time since Show was called, is
// called by another goroutine, and must return one short line.
func (o Output) Show(status func(elapsed time.Duration) string) (stop func()) {
	if o.Terminal == nil && o.Plain == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		o.draw(ctx, status)
	}()
	return func() {
		cancel()
		<-done
	}
}

func (o Output) draw(ctx context.Context, status func(time.Duration) string) {
	begin := time.Now()
	select {
	case <-ctx.Done():
		return
	case <-time.After(delay):
	}
	if o.Terminal == nil {
		io.WriteString(o.Plain, status(time.Since(begin))+"\n")
		return
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		io.WriteString(o.Terminal, erase+status(time.Since(begin)))
		select {
		case <-ctx.Done():
			io.WriteString(o.Terminal, erase)
			return
		case <-tick.C:
		}
	}
}

package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// progress tells what the demo does: a line a step, with the seconds since the
// beginning, and on a terminal a wheel that turns while the step lasts.
type progress struct {
	out   io.Writer
	tty   bool
	began time.Time
	// notes are printed below the line of the current step.
	notes []string
}

func newProgress(out io.Writer, tty bool) *progress {
	return &progress{out: out, tty: tty, began: time.Now()}
}

// isTerminal says whether w is a terminal.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

const (
	wheel = `-\|/`
	// turn is the time between two positions of the wheel.
	turn = 120 * time.Millisecond
	// erase goes to the beginning of the line and clears it.
	erase  = "\r\x1b[K"
	indent = "            "
)

// step runs one step and tells what came of it.
func (p *progress) step(title string, do func() (string, error)) error {
	stop := p.begin(title)
	result, err := do()
	stop()
	if err != nil {
		result = "FAILED"
	}
	p.line(title + ": " + result + "\n")
	for _, n := range p.notes {
		fmt.Fprintf(p.out, "%s%s\n\n", indent, strings.ReplaceAll(n, "\n", "\n"+indent))
	}
	p.notes = nil
	return err
}

// note adds something to the current step: a title, and text of several lines
// or none. It must not be called by two goroutines at once.
func (p *progress) note(title, text string) {
	if text = strings.TrimRight(text, "\n"); text != "" {
		title += "\n  " + strings.ReplaceAll(text, "\n", "\n  ")
	}
	p.notes = append(p.notes, title)
}

// begin turns the wheel, if there is one, until the function that it returns is called.
func (p *progress) begin(title string) (stop func()) {
	if !p.tty {
		return func() {}
	}
	end := make(chan struct{})
	var turning sync.WaitGroup
	turning.Go(func() {
		tick := time.NewTicker(turn)
		defer tick.Stop()
		for n := 0; ; n++ {
			io.WriteString(p.out, erase)
			p.line(title + " " + wheel[n%len(wheel):][:1])
			select {
			case <-end:
				io.WriteString(p.out, erase)
				return
			case <-tick.C:
			}
		}
	})
	return func() {
		close(end)
		turning.Wait()
	}
}

func (p *progress) line(text string) {
	fmt.Fprintf(p.out, "[%7.2f s] %s", time.Since(p.began).Seconds(), text)
}

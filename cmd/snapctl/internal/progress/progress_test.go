package progress

import (
	"bytes"
	"io"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

func terminal(w io.Writer) Output { return Output{Terminal: w} }
func plain(w io.Writer) Output    { return Output{Plain: w} }

func TestShow(t *testing.T) {
	for name, c := range map[string]struct {
		work time.Duration
		to   func(io.Writer) Output
		want string
	}{
		"quick work is silent": {delay - time.Millisecond, terminal, ""},
		"drawn and cleared":    {delay + interval + time.Millisecond, terminal, erase + "1s" + erase + "1.2s" + erase},
		"told once":            {delay + 10*interval, plain, "1s\n"},
		"quick, no terminal":   {delay - time.Millisecond, plain, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var b bytes.Buffer
				stop := c.to(&b).Show(time.Duration.String)
				time.Sleep(c.work) // the bubble's time, not ours
				stop()
				if got := b.String(); got != c.want {
					t.Errorf("drawn %q, want %q", got, c.want)
				}
			})
		})
	}
}

func TestShowNowhere(t *testing.T) {
	stop := Output{}.Show(func(time.Duration) string {
		t.Error("the status was asked for")
		return ""
	})
	stop()
	stop()
}

func TestIsTerminal(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if IsTerminal(w) {
		t.Error("a pipe is taken for a terminal")
	}
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	if !IsTerminal(master) {
		t.Error("a terminal is not recognised")
	}
}

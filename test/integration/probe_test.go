package integration

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/containerd-snap/snap/test/harness"
)

const (
	probeAddress = "127.0.0.1:7000"
	// answerTimeout is ample for a program that is not paused.
	answerTimeout = time.Second
)

// probeState is what the probe says of itself; see its State.
type probeState struct {
	Token         string
	Counter, File int64
	Hostname      string
	PID           int
}

// ask asks the probe in a container for its state, over its network.
func (c *container) ask() (probeState, error) {
	var s probeState
	ctx, cancel := context.WithTimeout(c.t.Context(), answerTimeout)
	defer cancel()
	conn, err := harness.DialIn(ctx, c.pid(), probeAddress)
	if err != nil {
		return s, err
	}
	defer conn.Close()
	if d, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(d); err != nil {
			return s, err
		}
	}
	if _, err := fmt.Fprintln(conn, "state"); err != nil {
		return s, err
	}
	line, err := bufio.NewReader(conn).ReadBytes('\n')
	if err != nil {
		return s, fmt.Errorf("read the probe's answer: %w", err)
	}
	err = json.Unmarshal(line, &s)
	return s, err
}

// probe returns the state of the probe, once it answers and counts, and checks
// that its memory and its file agree.
func (c *container) probe() probeState {
	c.t.Helper()
	var s probeState
	eventually(c.t, func() (err error) {
		if s, err = c.ask(); err == nil && s.Counter == 0 {
			return errors.New("the probe does not count yet")
		}
		return err
	})
	if s.Counter != s.File {
		c.t.Errorf("%s: the counter in memory is %d, in the file %d", c.ID(), s.Counter, s.File)
	}
	return s
}

// goesOn checks that the probe is the one that before tells of, and still counts.
func (c *container) goesOn(before probeState) probeState {
	c.t.Helper()
	now := c.probe()
	if now.Token != before.Token {
		c.t.Errorf("%s: the program was booted anew: its token is %s, was %s", c.ID(), now.Token, before.Token)
	}
	if now.Counter < before.Counter {
		c.t.Errorf("%s: the counter is %d, was %d", c.ID(), now.Counter, before.Counter)
	}
	eventually(c.t, func() error {
		s, err := c.ask()
		if err == nil && s.Counter <= now.Counter {
			return fmt.Errorf("%s: the counter stands at %d", c.ID(), s.Counter)
		}
		return err
	})
	return now
}

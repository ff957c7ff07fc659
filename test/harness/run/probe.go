package run

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
	// ProbeAddress is where the probe answers, in its network.
	ProbeAddress = "127.0.0.1:7000"
	// answerTimeout is ample for a program that is not paused.
	answerTimeout = time.Second
)

// ProbeState is what the probe says of itself; see its State.
type ProbeState struct {
	Token         string
	Counter, File int64
	Hostname      string
	PID           int
}

// Ask asks the probe in a container for its state, over its network.
func (c *Container) Ask() (ProbeState, error) {
	var s ProbeState
	ctx, cancel := context.WithTimeout(c.T.Context(), answerTimeout)
	defer cancel()
	conn, err := harness.DialIn(ctx, c.Pid(), ProbeAddress)
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

// Probe returns the state of the probe, once it answers and counts, and checks
// that its memory and its file agree.
func (c *Container) Probe() ProbeState {
	c.T.Helper()
	var s ProbeState
	Eventually(c.T, func() (err error) {
		if s, err = c.Ask(); err == nil && s.Counter == 0 {
			return errors.New("the probe does not count yet")
		}
		return err
	})
	if s.Counter != s.File {
		c.T.Errorf("%s: the counter in memory is %d, in the file %d", c.ID(), s.Counter, s.File)
	}
	return s
}

// GoesOn checks that the probe is the one that before tells of, and still counts.
func (c *Container) GoesOn(before ProbeState) ProbeState {
	c.T.Helper()
	now := c.Probe()
	if now.Token != before.Token {
		c.T.Errorf("%s: the program was booted anew: its token is %s, was %s", c.ID(), now.Token, before.Token)
	}
	if now.Counter < before.Counter {
		c.T.Errorf("%s: the counter is %d, was %d", c.ID(), now.Counter, before.Counter)
	}
	Eventually(c.T, func() error {
		s, err := c.Ask()
		if err == nil && s.Counter <= now.Counter {
			return fmt.Errorf("%s: the counter stands at %d", c.ID(), s.Counter)
		}
		return err
	})
	return now
}

package cri

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"
)

// probeState is what the probe of the integration tests says of itself.
type probeState struct {
	Token         string
	Counter, File int64
	Hostname      string
	PID           int
}

// ask asks the probe at a pod's address, over the pod's network.
func ask(t *testing.T, ip string) (probeState, error) { return askAt(t, net.JoinHostPort(ip, "7000")) }

func askAt(t *testing.T, address string) (probeState, error) {
	var s probeState
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
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

// probe returns the state of the probe, once it answers at the address of its
// pod and counts, and checks that its memory and its file agree.
func (c *container) probe() probeState {
	c.t.Helper()
	var s probeState
	ip := c.pod.address()
	if ip == "" { // the node's network
		ip = "127.0.0.1"
	}
	eventually(c.t, func() (err error) {
		if s, err = ask(c.t, ip); err == nil && s.Counter == 0 {
			return errors.New("the probe does not count yet")
		}
		return err
	})
	if s.Counter != s.File {
		c.t.Errorf("the counter in memory is %d, in the file %d", s.Counter, s.File)
	}
	return s
}

// goesOn checks that the probe is the one that before tells of, and still counts.
func (c *container) goesOn(before probeState) probeState {
	c.t.Helper()
	now := c.probe()
	if now.Token != before.Token {
		c.t.Errorf("the program was booted anew: its token is %s, was %s", now.Token, before.Token)
	}
	if now.Counter < before.Counter {
		c.t.Errorf("the counter is %d, was %d", now.Counter, before.Counter)
	}
	eventually(c.t, func() error {
		s := c.probe()
		if s.Counter <= now.Counter {
			return fmt.Errorf("the counter stands at %d", s.Counter)
		}
		return nil
	})
	return now
}

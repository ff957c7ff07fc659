package network

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/containerd-snap/snap/test/harness"
	"github.com/containerd-snap/snap/test/harness/run"
)

// state is what the endpoints say of themselves; see their State.
type state struct {
	Token string
	Bound map[string]string
}

// line says a line to who listens at an address in the network of pid, and returns what
// he answers.
func line(t *testing.T, pid int, address, text string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	c, err := harness.DialIn(ctx, pid, address)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintln(c, text); err != nil {
		return "", err
	}
	answer, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(answer), err
}

// ask asks endpoints at an address for their state, until they answer.
func ask(t *testing.T, pid int, address string) (s state) {
	t.Helper()
	run.Eventually(t, func() error {
		text, err := line(t, pid, address, "state")
		if err != nil {
			return err
		}
		return json.Unmarshal([]byte(text), &s)
	})
	return s
}

// packet sends a packet from the network of pid, and waits for its echo.
func packet(t *testing.T, pid int, address string) error {
	t.Helper()
	var c net.Conn
	err := harness.InNetNS(pid, func() (err error) {
		c, err = net.Dial("udp", address)
		return err
	})
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return err
	}
	if _, err := fmt.Fprint(c, address); err != nil {
		return err
	}
	b := make([]byte, 100)
	n, err := c.Read(b)
	if err == nil && string(b[:n]) != address {
		return fmt.Errorf("the echo of %s is %q", address, b[:n])
	}
	return err
}

// rules lists the packet filter's rules in the network of a process: nftables', and what the
// kernel's older tables hold. Chains without rules that let everything pass count as none.
func rules(pid int) (string, error) {
	var found strings.Builder
	err := harness.InNetNS(pid, func() error {
		out, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
		if err != nil {
			return fmt.Errorf("nft: %w: %s", err, out)
		}
		found.Write(out)
		for _, save := range []string{"iptables-legacy-save", "ip6tables-legacy-save"} {
			out, err := exec.Command(save).CombinedOutput()
			if errors.Is(err, exec.ErrNotFound) {
				return err
			}
			for text := range strings.Lines(string(out)) {
				if strings.HasPrefix(text, "-A") || strings.Contains(text, " DROP ") {
					found.WriteString(text)
				}
			}
		}
		return nil
	})
	return found.String(), err
}

// noRules checks that a network has no packet filter's rules.
func noRules(t *testing.T, what string, pid int) {
	t.Helper()
	if found, err := rules(pid); err != nil || found != "" {
		t.Errorf("%s: rules %q, %v", what, found, err)
	}
}

// redisAt gives a command to the Redis server at an address of the host's networks, and returns
// its answer.
func redisAt(t *testing.T, address string, command []string) (string, error) {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, 2*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintln(c, strings.Join(command, " ")); err != nil {
		return "", err
	}
	lines := bufio.NewScanner(c)
	for lines.Scan() {
		text := lines.Text()
		switch {
		case strings.HasPrefix(text, "+"):
			return text[1:], nil
		case !strings.HasPrefix(text, "$"): // the length of what follows
			return text, nil
		}
	}
	return "", fmt.Errorf("%s: no answer to %q: %w", address, command, lines.Err())
}

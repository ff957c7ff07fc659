package programs

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/containerd-snap/snap/test/harness/run"
)

// TestLocks: processes and threads that share futexes. Some wait for robust locks that
// others hold over the capture; that an owner ended, the kernel tells them afterwards.
func TestLocks(t *testing.T) {
	t.Parallel()
	survives(t, want(t, "busybox", nil, "/app/locks"), &locks{})
}

// locks speaks to testdata/locks.c.
type locks struct{ before lockState }

// ownerDied is what those know who waited for a lock whose owner ended.
const ownerDied = "owner died"

// lockState is what the program says of itself.
type lockState struct {
	// Total is counted under a lock, and Sum what the threads that count say.
	Total, Sum int64
	// Turns is how often two processes have woken one another.
	Turns int64
	// Names are what was added.
	Names string
	// Thread and Process are what those know who wait for the lock that a thread, and that a
	// process holds.
	Thread, Process string
}

// ask sends a command and returns the answer, a line.
func (l *locks) ask(i *instance, command string) (string, error) {
	conn, err := i.dial(run.Context(i.T), 7000)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(run.Deadline)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintln(conn, command); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(conn)
	return strings.TrimSpace(string(answer)), err
}

func (l *locks) state(i *instance) (s lockState, err error) {
	answer, err := l.ask(i, "state")
	if err == nil {
		err = json.Unmarshal([]byte(answer), &s)
	}
	if err == nil && s.Total != s.Sum {
		err = fmt.Errorf("the lock does not exclude: counted %d, and the threads say %d", s.Total, s.Sum)
	}
	return s, err
}

func (l *locks) load(i *instance) error {
	return eventually(i.T, run.Deadline, func() (err error) {
		if l.before, err = l.state(i); err == nil && (l.before.Total == 0 || l.before.Turns == 0) {
			err = errors.New("nothing was counted yet")
		}
		return err
	})
}

func (l *locks) goesOn(*instance) error { return nil }

func (l *locks) holds(i *instance, names ...string) error {
	first, err := l.state(i)
	if err != nil {
		return err
	}
	if first.Total < l.before.Total || first.Turns < l.before.Turns {
		return fmt.Errorf("it begins at %+v, it had been at %+v", first, l.before)
	}
	if want := strings.Join(names, " "); first.Names != want {
		return fmt.Errorf("it holds %q, want %q", first.Names, want)
	}
	waiter := "waiting"
	if len(names) > 0 {
		waiter = ownerDied
	}
	if first.Thread != waiter || first.Process != waiter {
		return fmt.Errorf("want who waits for locks: %s; got %+v", waiter, first)
	}
	return eventually(i.T, run.Deadline, func() error {
		now, err := l.state(i)
		if err == nil && (now.Total <= first.Total || now.Turns <= first.Turns) {
			err = fmt.Errorf("its threads stand at %+v", now)
		}
		return err
	})
}

// change ends those who hold locks, if they live.
func (l *locks) change(i *instance, name string) error {
	s, err := l.state(i)
	if err != nil {
		return err
	}
	commands := []string{"add " + name}
	if s.Names == "" {
		commands = append(commands, "end thread", "end process")
	}
	for _, command := range commands {
		if answer, err := l.ask(i, command); err != nil || answer != "done" {
			return fmt.Errorf("%s: %q (%w)", command, answer, err)
		}
	}
	return eventually(i.T, run.Deadline, func() error {
		s, err := l.state(i)
		if err == nil && (s.Thread != ownerDied || s.Process != ownerDied) {
			err = fmt.Errorf("who waits has not learnt that the owner died: %+v", s)
		}
		return err
	})
}

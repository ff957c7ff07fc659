package integration

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/cio"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/store"
	"github.com/containerd-snap/snap/shim/capture"
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
	return s, json.Unmarshal(line, &s)
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

// openStore opens a node's store.
func openStore(t *testing.T, n *harness.Node) *store.Store {
	t.Helper()
	s, err := store.Open(n.StoreRoot)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (c *container) recordOf() (checkpoint.Start, error) {
	s, err := store.Open(c.node.StoreRoot)
	if err != nil {
		return checkpoint.Start{}, err
	}
	return s.Start(c.node.Namespace, c.ID())
}

// record is the record of the container's last start.
func (c *container) record() checkpoint.Start {
	c.t.Helper()
	r, err := c.recordOf()
	if err != nil {
		c.t.Fatal(err)
	}
	return r
}

// capture takes a checkpoint of the task.
func (c *container) capture(req capture.Request) (checkpoint.Entry, error) {
	req.ID = c.ID()
	return capture.Call(testContext(c.t), c.record().Address, req)
}

// mustCapture takes a checkpoint under a name, which is removed with the test.
func (c *container) mustCapture(req capture.Request) checkpoint.Entry {
	c.t.Helper()
	e, err := c.capture(req)
	if err != nil {
		c.t.Fatal(err)
	}
	s := openStore(c.t, c.node)
	c.t.Cleanup(func() {
		if err := s.Remove(e.Digest); err != nil && !errors.Is(err, checkpoint.ErrNotFound) {
			c.t.Error(err)
		}
	})
	e, err = s.Resolve(e.Digest)
	if err != nil {
		c.t.Fatal(err)
	}
	return e
}

// mustRestored checks that the task was restored from the checkpoint.
func (c *container) mustRestored(e checkpoint.Entry) {
	c.t.Helper()
	r := c.record()
	if r.Outcome != checkpoint.Restore || r.Decision.Digest != e.Digest {
		c.t.Errorf("%s: outcome %s from %q, want a restore from %s; decision %+v, fallback %q, error %q",
			c.ID(), r.Outcome, r.Decision.Digest, e.Digest, r.Decision, r.Fallback, r.Error)
	}
}

// mustBooted checks that the task was booted, and that the record says why.
func (c *container) mustBooted(reason string) {
	c.t.Helper()
	r := c.record()
	if r.Outcome != checkpoint.Boot || !strings.Contains(r.Decision.Reason, reason) {
		c.t.Errorf("%s: outcome %s, want boot with a reason that says %q; decision %+v", c.ID(), r.Outcome, reason, r.Decision)
	}
}

// exec runs a command in the container and returns its output and exit status.
func (c *container) exec(args ...string) (string, uint32) {
	c.t.Helper()
	ctx := testContext(c.t)
	sp, err := c.Spec(ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	p := *sp.Process
	p.Args, p.Terminal = args, false
	var out output
	e, err := c.task.Exec(ctx, fmt.Sprintf("e%d", serial.Add(1)), &p, cio.NewCreator(cio.WithStreams(nil, &out, &out), cio.WithFIFODir(c.node.Dir)))
	if err != nil {
		c.t.Fatal(err)
	}
	exit, err := e.Wait(ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := e.Start(ctx); err != nil {
		c.t.Fatal(err)
	}
	s := <-exit
	if err := s.Error(); err != nil {
		c.t.Fatal(err)
	}
	e.IO().Wait()
	if _, err := e.Delete(ctx); err != nil {
		c.t.Fatal(err)
	}
	return out.String(), s.ExitCode()
}

// mustExec runs a command that must succeed.
func (c *container) mustExec(args ...string) string {
	c.t.Helper()
	out, code := c.exec(args...)
	if code != 0 {
		c.t.Fatalf("%s: exec %q: exit status %d: %s", c.ID(), args, code, out)
	}
	return out
}

// netns is the inode number of a process's network namespace.
func netns(t *testing.T, pid int) uint64 {
	t.Helper()
	st, err := os.Stat(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		t.Fatal(err)
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		t.Fatalf("stat of a namespace: %T", st.Sys())
	}
	return sys.Ino
}

// inOwnCgroup checks that the processes are those of the container's own cgroups,
// in every hierarchy that the node uses, and that there are no others.
func (c *container) inOwnCgroup() {
	c.t.Helper()
	pids, err := c.task.Pids(testContext(c.t))
	if err != nil {
		c.t.Fatal(err)
	}
	var told []int
	for _, p := range pids {
		told = append(told, int(p.Pid))
	}
	own := ":/" + c.node.Namespace + "/" + c.ID()
	var inside []int
	all, err := harness.Processes()
	if err != nil {
		c.t.Fatal(err)
	}
	for _, p := range all {
		if !slices.ContainsFunc(p.Cgroups, func(line string) bool { return strings.HasSuffix(line, own) }) {
			continue
		}
		inside = append(inside, p.PID)
		for _, line := range p.Cgroups {
			if strings.Contains(line, c.node.Namespace) && !strings.HasSuffix(line, own) {
				c.t.Errorf("%s: process %s is in cgroup %s, too", c.ID(), p, line)
			}
		}
	}
	slices.Sort(told)
	slices.Sort(inside)
	if !slices.Equal(told, inside) || !slices.Contains(inside, c.pid()) {
		c.t.Errorf("%s: processes in the container's cgroup: %v, told: %v, init: %d", c.ID(), inside, told, c.pid())
	}
}

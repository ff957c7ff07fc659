package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/shim/capture"
	"github.com/containerd-snap/snap/test/harness"
)

// TestNoRunc runs a task through its life on a node on whose PATH a file called
// runc notes that it is executed.
func TestNoRunc(t *testing.T) {
	t.Parallel()
	n := newNode(t, harness.Options{})
	trace := filepath.Join(n.Dir, "runc-was-here")
	trap := fmt.Sprintf("#!/bin/sh\necho \"$@\" >>%s\nexit 1\n", trace)
	if err := os.WriteFile(filepath.Join(n.Bin, "runc"), []byte(trap), 0o700); err != nil {
		t.Fatal(err)
	}
	c := start(t, n, probeOf())
	before := c.Probe()
	c.MustExec("true")
	e := c.MustCapture(capture.Request{})
	clone := start(t, n, probeOf())
	clone.MustRestored(e)
	clone.GoesOn(before)
	for _, k := range []*container{c, clone} {
		k.Kill(unix.SIGKILL)
		k.Wait()
		k.DeleteTask()
	}
	if calls, err := os.ReadFile(trace); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("runc was executed (%v): %s", err, calls)
	}
}

// TestNothingLeft checks that a deleted container leaves nothing, its shim and
// its network namespace included.
func TestNothingLeft(t *testing.T) {
	t.Parallel()
	n := newNode(t, harness.Options{})
	for _, end := range []string{"kill", "exit"} {
		c := start(t, n, probeOf())
		before := c.Probe()
		ns := netns(t, c.Pid())
		if end == "kill" {
			e := c.MustCapture(capture.Request{})
			r := start(t, n, probeOf())
			r.MustRestored(e)
			r.GoesOn(before)
			cloneNS := netns(t, r.Pid())
			r.Kill(unix.SIGKILL)
			r.Wait()
			r.DeleteTask()
			noNetNS(t, cloneNS)
		}
		c.Kill(unix.SIGTERM)
		if got := c.Wait(); got != 7 {
			t.Errorf("exit status %d", got)
		}
		c.DeleteTask()
		noNetNS(t, ns)
		nothingLeft(t, n)
	}
}

// nothingLeft checks that nothing is left of any container of a node, and
// removes what is.
func nothingLeft(t *testing.T, n *harness.Node) {
	t.Helper()
	left, err := n.Settle(context.WithoutCancel(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	if !left.Empty() {
		t.Errorf("something is left:\n%s", left)
		// The next test is not to stumble over it.
		if err := n.Sweep(); err != nil {
			t.Error(err)
		}
	}
}

// netns is a process's network namespace.
func netns(t *testing.T, pid int) harness.NetNS {
	t.Helper()
	n, err := harness.NetNSOf(pid)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// noNetNS checks that nothing keeps a network namespace alive.
func noNetNS(t *testing.T, n harness.NetNS) {
	t.Helper()
	eventually(t, func() error {
		holders, err := n.Holders()
		if err == nil && len(holders) > 0 {
			return fmt.Errorf("network namespace %v is kept alive by %v", n, holders)
		}
		return err
	})
}

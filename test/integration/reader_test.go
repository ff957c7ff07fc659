package integration

import (
	"context"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/cio"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/test/harness"
)

// unread makes streams that are open for reading, and that nobody reads.
func unread(t *testing.T, c *container) (cio.Creator, func() *cio.DirectIO) {
	t.Helper()
	var opened *cio.DirectIO
	create := func(id string) (cio.IO, error) {
		fifos, err := cio.NewFIFOSetInDir(c.Node.Dir, id, false)
		if err != nil {
			return nil, err
		}
		fifos.Stdin = ""
		opened, err = cio.NewDirectIO(context.WithoutCancel(t.Context()), fifos)
		return opened, err
	}
	return create, func() *cio.DirectIO { return opened }
}

// TestStuckReader: whoever does not read a task's output, or is dead, delays
// neither the word of its exit nor, for long, its deletion.
func TestStuckReader(t *testing.T) {
	t.Parallel()
	n := newNode(t, harness.Options{})
	for name, c := range map[string]struct {
		script string
		// dies: the reader goes away; killed: the task is killed, as it waits for its reader.
		dies, killed bool
		status       uint32
	}{
		"words":            {script: "echo last words; exit 3", status: 3},
		"words, dead":      {script: "sleep 1; echo last words; exit 3", dies: true, status: 3},
		"a flood":          {script: "yes", killed: true, status: 137},
		"a flood, dead":    {script: "yes", dies: true, killed: true, status: 137},
		"a flood and exit": {script: "yes & sleep 1; exit 4", status: 4},
	} {
		t.Run(name, func(t *testing.T) {
			k := newContainer(t, n, shell(c.script))
			creator, opened := unread(t, k)
			var err error
			if k.Task, err = k.NewTask(testContext(t), creator); err != nil {
				t.Fatal(err)
			}
			rewait(k)
			if err := k.Task.Start(testContext(t)); err != nil {
				t.Fatal(err)
			}
			if c.dies {
				opened().Close()
			}
			if c.killed {
				time.Sleep(500 * time.Millisecond) // until the pipes are full, most likely
				k.Kill(unix.SIGKILL)
			}
			begin := time.Now()
			if got := k.Wait(); got != c.status {
				t.Errorf("exit status %d, want %d", got, c.status)
			}
			told := time.Since(begin)
			if s := k.DeleteTask(); s.ExitCode() != c.status {
				t.Errorf("deleted with status %d", s.ExitCode())
			}
			t.Logf("the exit was told after %s, the task deleted after %s", told, time.Since(begin))
			opened().Close()
			nothingLeft(t, n)
		})
	}
}

// TestStuckExecReader is that for an exec'd process: the task goes on.
func TestStuckExecReader(t *testing.T) {
	t.Parallel()
	c := start(t, shared, probeOf())
	before := c.Probe()
	sp, err := c.Spec(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	p := *sp.Process
	p.Args = []string{"yes"}
	creator, opened := unread(t, c)
	e, err := c.Task.Exec(testContext(t), "flood", &p, creator)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond) // until the pipes are full, most likely
	if err := e.Kill(testContext(t), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if got := endOf(t, e); got != 137 {
		t.Errorf("exit status %d", got)
	}
	if _, err := e.Delete(testContext(t)); err != nil {
		t.Error(err)
	}
	opened().Close()
	c.GoesOn(before)
}

package failpoint

import (
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/containerd-snap/snap/test/failpoint/fault"
	"github.com/containerd-snap/snap/test/harness"
)

// method is one of the task service, as a client calls it through containerd.
type method struct {
	// where is its name for the fault.
	where string
	// before are the steps up to it.
	before []func(c *container) error
	call   func(c *container) error
	// again is the class of the answer to a second call after one that was done,
	// but seemed to fail; empty for success.
	again string
	// inner: containerd makes the call by itself and may keep the error to itself.
	inner bool
}

type steps = []func(c *container) error

var (
	created = steps{(*container).create}
	running = append(created, (*container).start)
	execing = append(running, (*container).exec)
	execed  = append(execing, (*container).startExec)
	stopped = append(running, (*container).end)
)

var methods = map[string]method{
	"create":      {where: "Create", call: (*container).create},
	"connect":     {where: "Connect", call: (*container).create, again: "AlreadyExists", inner: true},
	"start":       {where: "Start", before: created, call: (*container).start, again: "FailedPrecondition"},
	"exec":        {where: "Exec", before: running, call: (*container).exec, again: "AlreadyExists"},
	"start exec":  {where: "Start@2", before: execing, call: (*container).startExec, again: "FailedPrecondition"},
	"delete exec": {where: "Delete", before: append(execed, (*container).killExec), call: (*container).deleteExec, again: "NotFound"},
	"pause":       {where: "Pause", before: running, call: (*container).pause, again: "FailedPrecondition"},
	"resume":      {where: "Resume", before: append(running, (*container).pause), call: (*container).resume, again: "FailedPrecondition"},
	"kill":        {where: "Kill", before: running, call: (*container).kill},
	"pids":        {where: "Pids", before: running, call: (*container).pids},
	"stats":       {where: "Stats", before: running, call: (*container).stats, inner: true},
	"state":       {where: "State", before: created, call: (*container).state, inner: true},
	"close I/O":   {where: "CloseIO", before: running, call: (*container).closeIO},
	"resize":      {where: "ResizePty", before: running, call: (*container).resize},
	"update":      {where: "Update", before: running, call: (*container).update},
	"checkpoint":  {where: "Checkpoint", before: running, call: (*container).checkpoint},
	"wait":        {where: "Wait", before: running, call: (*container).end, inner: true},
	"delete":      {where: "Delete", before: stopped, call: (*container).delete, again: "ok or NotFound"},
	"shutdown":    {where: "Shutdown", before: stopped, call: (*container).delete, again: "ok or NotFound", inner: true},
}

// TestErrors: a call that fails before it was done has changed nothing, and can be
// made again; one that was done and seems to have failed is not done twice.
func TestErrors(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for name, m := range methods {
		for _, when := range []string{"before ", "after "} {
			t.Run(when+name, func(t *testing.T) {
				c := m.prepare(t, n, when+fault.Error)
				err := m.call(c)
				if !c.happened() {
					t.Fatalf("the fault did not happen; the call said %v", err)
				}
				if !m.inner && (err == nil || !strings.Contains(err.Error(), "fault injected")) {
					t.Errorf("the call said %v", err)
				}
				if err == nil {
					return
				}
				want := "ok"
				if when == "after " && m.again != "" && m.where != "Create" {
					want = m.again
				}
				if m.where == "Connect" || m.where == "Shutdown" {
					// What containerd did before it made this call has been done.
					want = m.again
				}
				if got := class(m.call(c)); !strings.Contains(want, got) {
					t.Errorf("a second call: %s, want %s", got, want)
				}
			})
		}
	}
	settled(t, n)
}

// TestKills: a shim that dies before or after a call takes its task along;
// containerd's clean-up leaves nothing, and the container can have another task.
func TestKills(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for name, m := range methods {
		ways := []string{"before " + fault.Kill, "after " + fault.Kill}
		if name == "create" || name == "start" {
			// To the outside a panic is no other death.
			ways = append(ways, "before "+fault.Panic)
		}
		for _, how := range ways {
			t.Run(how+" "+name, func(t *testing.T) {
				c := m.prepare(t, n, how)
				err := m.call(c)
				if !c.happened() {
					t.Fatalf("the fault did not happen; the call said %v", err)
				}
				c.gone()
				c.again()
			})
		}
	}
	settled(t, n)
}

// prepare makes a container whose shim fails, and takes it up to the call.
func (m method) prepare(t *testing.T, n *harness.Node, how string) *container {
	t.Helper()
	c := newContainer(t, n, m.where, how)
	for _, step := range m.before {
		c.must(step(c))
	}
	return c
}

// gone waits until containerd knows no task of the container's.
func (c *container) gone() {
	c.Helper()
	c.eventually(func() error {
		_, err := c.Task(c.context(), nil)
		if errdefs.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("the task of a shim that died: %w", err)
	})
}

// settled checks that nothing is left on a node whose containers are deleted.
func settled(t *testing.T, n *harness.Node) {
	t.Helper()
	left, err := n.Settle(t.Context())
	if err != nil || !left.Empty() {
		t.Errorf("%v; something is left:\n%s", err, left)
	}
}

func class(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errdefs.IsNotFound(err):
		return "NotFound"
	case errdefs.IsAlreadyExists(err):
		return "AlreadyExists"
	case errdefs.IsFailedPrecondition(err):
		return "FailedPrecondition"
	}
	return err.Error()
}

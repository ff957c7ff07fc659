// Package measure starts tasks by ctr, as a user does, and measures the time to their
// first answer. The demo and the benchmark measure with it.
package measure

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/test/harness"
)

const (
	// StockRuntime is containerd's name of the runtime to compare with.
	StockRuntime = "io.containerd.runc.v2"
	// pollInterval is how often it is asked whether the program answers yet.
	pollInterval = time.Millisecond
	// startTimeout, commandTimeout: many times what it takes.
	startTimeout   = 2 * time.Minute
	commandTimeout = time.Minute
)

// Start is how a task is started.
type Start struct {
	ID string
	// Command is ctr's, without "ctr".
	Command []string
	// Prepare is called with the process's id as soon as there is one; it may be nil.
	Prepare func(pid int) error
	// Answer asks the program once. Until it listens there is no answer: the error says
	// nothing then.
	Answer func(ctx context.Context, pid int) error
}

// Life is a started program.
type Life struct {
	ID  string
	PID int
	// Began is when the command was given, Took the time from then to the first answer.
	Began time.Time
	Took  time.Duration
}

// Run starts the task and waits for the program's first answer. The command is not
// interrupted: what is killed halfway leaves half of what it makes behind.
func Run(ctx context.Context, n *harness.Node, s Start) (Life, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	waiting, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	running, kill := ToTheEnd(ctx, startTimeout)
	defer kill()
	ended := make(chan error, 1)
	l := Life{ID: s.ID, Began: time.Now()}
	go func() {
		_, err := n.Ctr(running, s.Command...)
		if err != nil {
			giveUp(err)
		}
		ended <- err
	}()
	err := l.firstAnswer(waiting, n, s)
	l.Took = time.Since(l.Began)
	if failed := <-ended; failed != nil && err == nil {
		err = failed
	}
	if err != nil {
		return l, fmt.Errorf("start %s: %w", s.ID, err)
	}
	return l, nil
}

// firstAnswer waits until the task has a process, and then for its first answer.
func (l *Life) firstAnswer(ctx context.Context, n *harness.Node, s Start) error {
	err := Poll(ctx, func() (_ bool, err error) {
		l.PID, err = pid(ctx, n, s.ID)
		return l.PID != 0, err
	})
	if err != nil {
		return err
	}
	if s.Prepare != nil {
		if err := s.Prepare(l.PID); err != nil {
			return err
		}
	}
	return Poll(ctx, func() (bool, error) { return s.Answer(ctx, l.PID) == nil, nil })
}

// Poll calls done every few milliseconds until it returns true or an error, or
// ctx ends: then the error is the cause of that.
func Poll(ctx context.Context, done func() (bool, error)) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		ok, err := done()
		if ctx.Err() != nil && !ok {
			return context.Cause(ctx)
		}
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// pid is the task's process id, or 0 as long as there is none.
func pid(ctx context.Context, n *harness.Node, id string) (int, error) {
	r, err := n.Client().TaskService().Get(ctx, &tasks.GetRequest{ContainerID: id})
	switch native := errgrpc.ToNative(err); {
	case errdefs.IsNotFound(native):
		return 0, nil
	case errors.Is(native, context.DeadlineExceeded):
		// The stock shim answers nobody while it restores, and containerd gives up after 2 s.
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("ask containerd for task %s: %w", id, err)
	}
	return int(r.GetProcess().GetPid()), nil
}

// ToTheEnd is the context of a command that makes or removes something. It is
// not interrupted: what is killed halfway leaves half of that behind.
func ToTheEnd(ctx context.Context, deadline time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), deadline)
}

// Remove ends and deletes a container with its task.
func Remove(ctx context.Context, n *harness.Node, id string) error {
	ctx, cancel := ToTheEnd(ctx, commandTimeout)
	defer cancel()
	if _, err := n.Ctr(ctx, "tasks", "delete", "--force", id); err != nil {
		return err
	}
	_, err := n.Ctr(ctx, "containers", "delete", id)
	return err
}

// Explain returns the record of a task's start.
func Explain(ctx context.Context, n *harness.Node, id string) (checkpoint.Start, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	var x struct {
		Start checkpoint.Start `json:"start"`
	}
	out, err := n.Snapctl(ctx, "explain", id, "--json")
	if err != nil {
		return x.Start, err
	}
	if err := json.Unmarshal([]byte(out.Stdout), &x); err != nil {
		return x.Start, fmt.Errorf("read what snapctl explain printed: %w", err)
	}
	return x.Start, nil
}

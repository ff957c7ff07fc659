package lifecycle

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
)

// Info describes init (execID empty) or an exec'd process. NotFound if there
// is no such process.
func (t *Task) Info(execID string) (Info, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if execID != "" {
		e, err := t.execL(execID)
		if err != nil {
			return Info{}, err
		}
		return e.infoL(), nil
	}
	i := Info{ID: t.id, State: t.state, Stdio: t.stdio, Exit: t.exit, PID: t.exit.PID}
	if t.init != nil && t.state != Stopped && t.state != Deleted {
		i.PID = t.init.PID()
	}
	return i, nil
}

// Stats returns the metrics of the container's cgroup. NotFound once it is stopped
// and its cgroup gone.
func (t *Task) Stats() (any, error) {
	s, err := t.Init().Stats()
	if err != nil {
		return nil, fmt.Errorf("read metrics of task %s: %w", t.id, err)
	}
	return s, nil
}

// PIDs lists the task's processes, with the exec IDs of those that have one.
func (t *Task) PIDs(ctx context.Context) (pids []int, execIDs map[int]string, err error) {
	t.mu.Lock()
	init, state := t.init, t.state
	execIDs = make(map[int]string)
	for id, e := range t.execs {
		if e.state == Running {
			execIDs[e.process.PID()] = id
		}
	}
	t.mu.Unlock()
	if init == nil || state == Deleted {
		return nil, nil, fmt.Errorf("list processes of task %s: %w", t.id, errdefs.ErrNotFound)
	}
	pids, err = init.PIDs(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("list processes of task %s: %w", t.id, err)
	}
	return pids, execIDs, nil
}

// Resize sets the size of a process's terminal.
func (t *Task) Resize(execID string, width, height uint32) error {
	p, err := t.processOf(execID)
	if err != nil || p == nil {
		return err
	}
	return p.Resize(width, height)
}

// CloseStdin gives a process the end of its input.
func (t *Task) CloseStdin(execID string) error {
	p, err := t.processOf(execID)
	if err != nil || p == nil {
		return err
	}
	return p.CloseStdin()
}

// processOf returns the process, or nil if it has not been started.
func (t *Task) processOf(execID string) (Process, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if execID == "" {
		return t.init, nil
	}
	e, err := t.execL(execID)
	if err != nil {
		return nil, err
	}
	return e.process, nil
}

// Wait blocks until the process's exit has been reported, or ctx ends.
func (t *Task) Wait(ctx context.Context, execID string) (Exit, error) {
	exited, exit := t.exited, &t.exit
	if execID != "" {
		t.mu.Lock()
		e, err := t.execL(execID)
		t.mu.Unlock()
		if err != nil {
			return Exit{}, err
		}
		// Kept, not looked up again: somebody may delete the process at its exit.
		exited, exit = e.exited, &e.exit
	}
	select {
	case <-exited:
		t.mu.Lock()
		defer t.mu.Unlock()
		return *exit, nil
	case <-ctx.Done():
		return Exit{}, ctx.Err()
	}
}

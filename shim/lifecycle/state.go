package lifecycle

import (
	"fmt"

	"github.com/containerd/errdefs"
)

// State is where a process of a task is in its life.
type State uint8

// The states of a task's init process. An exec'd process uses Created,
// Starting, Running, Stopped and Deleted of them.
const (
	// Creating: the ID is taken, nothing can be asked of the task yet.
	Creating State = iota
	// Created: the init process exists and waits for Start.
	Created
	// Starting: a boot is being released.
	Starting
	// Restoring: a restore is being finished, or its fallback is booting.
	Restoring
	// Running: the program runs.
	Running
	// Capturing: the program stands still, or is about to, for a checkpoint.
	Capturing
	// Pausing: the cgroup is being frozen.
	Pausing
	// Paused: the cgroup is frozen at the user's request.
	Paused
	// Stopped: the process has exited and its status is known.
	Stopped
	// Deleted: nothing is left of it.
	Deleted

	numStates = int(Deleted) + 1
)

var stateNames = [numStates]string{
	"creating", "created", "starting", "restoring", "running",
	"capturing", "pausing", "paused", "stopped", "deleted",
}

func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// Op is something that can be asked of a task, or that can happen to it.
type Op uint8

// The operations. Each has a column in the table below.
const (
	// OpStart lets the program run.
	OpStart Op = iota
	// OpExec starts a further process.
	OpExec
	// OpKill sends a signal.
	OpKill
	// OpPause freezes the task.
	OpPause
	// OpResume thaws it.
	OpResume
	// OpCapture takes a checkpoint.
	OpCapture
	// OpUpdate changes its resources.
	OpUpdate
	// OpDelete removes what is left of it.
	OpDelete

	numOps = int(OpDelete) + 1
)

var opNames = [numOps]string{
	"start", "exec in", "kill", "pause", "resume", "checkpoint", "update", "delete",
}

func (o Op) String() string {
	if int(o) < len(opNames) {
		return opNames[o]
	}
	return fmt.Sprintf("op(%d)", uint8(o))
}

// allowed is the one table of what may be asked of an init process in which
// state. What is not in it is an error that names the operation and the state.
//
// Kill is allowed wherever a process exists: a signal must reach a task that is
// being restored or captured, or nobody could end one that hangs.
var allowed = [numStates][numOps]bool{
	Creating:  {},
	Created:   {OpStart: true, OpExec: true, OpKill: true, OpUpdate: true, OpDelete: true},
	Starting:  {OpKill: true},
	Restoring: {OpKill: true},
	Running:   {OpExec: true, OpKill: true, OpPause: true, OpCapture: true, OpUpdate: true},
	Capturing: {OpKill: true},
	Pausing:   {OpKill: true},
	Paused:    {OpKill: true, OpResume: true, OpCapture: true, OpUpdate: true},
	Stopped:   {OpDelete: true},
	Deleted:   {},
}

// Allows says whether op may be asked of an init process in state s.
func (s State) Allows(op Op) bool { return allowed[s][op] }

// check returns nil if op may be asked in state s, and the error for the user
// if not: NotFound for what is gone, FailedPrecondition for what is not in the
// right state. The classes are those that clients of the stock shim expect.
func (s State) check(id string, op Op) error {
	switch {
	case s.Allows(op):
		return nil
	case s == Deleted, s == Creating:
		return fmt.Errorf("%s task %s: task is %s: %w", op, id, s, errdefs.ErrNotFound)
	case s == Stopped && op == OpKill:
		return fmt.Errorf("kill task %s: process already finished: %w", id, errdefs.ErrNotFound)
	default:
		return fmt.Errorf("cannot %s task %s: it is %s: %w", op, id, s, errdefs.ErrFailedPrecondition)
	}
}

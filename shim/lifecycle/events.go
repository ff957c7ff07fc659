package lifecycle

import "time"

// Event is something that the outside hears of.
type Event interface{ event() }

// CreatedEvent: a task exists and waits for Start.
type CreatedEvent struct {
	ID  string
	PID int
	// Detail is what the caller of Registry.Create wants to tell with it.
	Detail any
}

// StartedEvent: the program runs.
type StartedEvent struct {
	ID  string
	PID int
}

// OOMEvent: the kernel killed a process of the task for lack of memory.
type OOMEvent struct{ ID string }

// ExitedEvent: a process has exited; ExecID is empty for init.
type ExitedEvent struct {
	ID, ExecID string
	Exit       Exit
}

// DeletedEvent: nothing is left of the task.
type DeletedEvent struct {
	ID   string
	Exit Exit
}

// ExecAddedEvent: a further process is known.
type ExecAddedEvent struct{ ID, ExecID string }

// ExecStartedEvent: it runs.
type ExecStartedEvent struct {
	ID, ExecID string
	PID        int
}

// PausedEvent: the task is frozen.
type PausedEvent struct{ ID string }

// ResumedEvent: it is thawed.
type ResumedEvent struct{ ID string }

// CheckpointedEvent: a checkpoint of the task was taken.
type CheckpointedEvent struct {
	ID, Checkpoint string
	At             time.Time
}

func (CreatedEvent) event()      {}
func (StartedEvent) event()      {}
func (OOMEvent) event()          {}
func (ExitedEvent) event()       {}
func (DeletedEvent) event()      {}
func (ExecAddedEvent) event()    {}
func (ExecStartedEvent) event()  {}
func (PausedEvent) event()       {}
func (ResumedEvent) event()      {}
func (CheckpointedEvent) event() {}

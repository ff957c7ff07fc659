package lifecycle

import "time"

// Event is something that the outside hears of.
type Event interface{ event() }

// CreatedEvent says that a task exists and waits for Start.
type CreatedEvent struct {
	ID  string
	PID int
	// Detail is what the caller of Registry.Create wants to tell with it.
	Detail any
}

// StartedEvent says that the program runs.
type StartedEvent struct {
	ID  string
	PID int
}

// OOMEvent says that the kernel killed a process of the task for lack of memory.
type OOMEvent struct{ ID string }

// ExitedEvent says that a process has exited; ExecID is empty for init.
type ExitedEvent struct {
	ID, ExecID string
	Exit       Exit
}

// DeletedEvent says that nothing is left of the task.
type DeletedEvent struct {
	ID   string
	Exit Exit
}

// ExecAddedEvent says that a further process is known.
type ExecAddedEvent struct{ ID, ExecID string }

// ExecStartedEvent says that it runs.
type ExecStartedEvent struct {
	ID, ExecID string
	PID        int
}

// PausedEvent says that the task is frozen.
type PausedEvent struct{ ID string }

// ResumedEvent says that it is thawed.
type ResumedEvent struct{ ID string }

// CheckpointedEvent says that a checkpoint of the task was taken.
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

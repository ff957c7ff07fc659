// Package lifecycle is the core of the shim: what may be asked of a task in
// which state, which operations exclude each other, and in which order the
// outside hears of what happened.
//
// It knows neither protobuf nor libcontainer nor CRIU; what it needs of them
// stands in this file as small interfaces. How a task starts (boot, restore,
// fallback) is not its business: it asks an Init to start.
//
// The order of events, which clients rely on:
//   - TaskStart before TaskExit, however short the program's life;
//   - TaskExecStarted before the exec's TaskExit;
//   - the exits of exec'd processes before the exit of init;
//   - TaskOOM before the TaskExit that it caused (the Init sees to it);
//   - TaskDelete last.
//
// Locks: a Task's ops semaphore serialises long operations (execs share it,
// the others are exclusive) and is the only one held across calls to an Init;
// a Task's mu guards its fields and is never held across such a call. The
// Registry's mu guards its map. Order: ops, then Registry.mu,
// then Task.mu.
package lifecycle

import (
	"context"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Exit is how a process ended.
type Exit struct {
	PID int
	// Status is the exit code, or 128 plus the number of the signal that ended it.
	Status int
	At     time.Time
}

// Stdio names a process's standard streams as containerd does: paths of FIFOs
// or log URIs; empty for none.
type Stdio struct {
	Stdin, Stdout, Stderr string
	Terminal              bool
}

// Process is one process that the shim waits for.
type Process interface {
	// PID is the process's id in the shim's pid namespace.
	PID() int
	// Wait blocks until the process has exited. It is called once.
	Wait() Exit
	// Signal sends sig. Valid from the creation to the exit; NotFound after it.
	Signal(ctx context.Context, sig unix.Signal) error
	// Resize sets the size of its terminal; without one it does nothing.
	Resize(width, height uint32) error
	// CloseStdin gives the process the end of its input.
	CloseStdin() error
	// Close waits, within ctx, until the process's output has been copied and
	// lets go of everything that was held for it. Valid after the exit.
	Close(ctx context.Context) error
}

// Init is a container and its first process, prepared up to the point where
// only Start is missing.
type Init interface {
	Process
	// Restores says that Start finishes a restore rather than a boot.
	Restores() bool
	// Start lets the program run. After a fallback PID differs from before. If
	// it fails nothing of the program is left, and Wait returns.
	Start(ctx context.Context) error
	// Exec starts a further process in the container.
	Exec(ctx context.Context, cfg ExecConfig) (Process, error)
	// SignalAll sends sig to every process of the container.
	SignalAll(ctx context.Context, sig unix.Signal) error
	// KillRest ends what a dead init may leave behind: processes of a
	// container whose pid namespace is not its own. It may be called again.
	KillRest(ctx context.Context) error
	// Pause and Resume freeze and thaw the container.
	Pause(ctx context.Context) error
	Resume(ctx context.Context) error
	// Update applies resources.
	Update(ctx context.Context, r *specs.LinuxResources) error
	// PIDs lists the container's processes.
	PIDs(ctx context.Context) ([]int, error)
	// Stats returns the metrics of the container's cgroup, in a type that is
	// handed on as it is.
	Stats() (any, error)
	// Destroy removes the container: its processes, cgroup, state and mounts.
	// It also ends an init that was never started.
	Destroy(ctx context.Context) error
}

// ExecConfig describes a process to be started in a running container.
type ExecConfig struct {
	ID    string
	Spec  *specs.Process
	Stdio Stdio
}

// Emitter takes events in their order. It must not block on the outside world.
type Emitter interface {
	Emit(Event)
}

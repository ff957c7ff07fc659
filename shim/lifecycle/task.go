package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"
)

const (
	// exclusive is the weight of an operation that tolerates no other beside it.
	exclusive = 1 << 30
	// shared is the weight of one that tolerates its like.
	shared = 1

	// drainTimeout bounds how long a delete waits for the last output to be
	// copied: a log reader that stands still must not block it.
	drainTimeout = 10 * time.Second
	// cleanupTimeout bounds what is undone after a caller has gone away.
	cleanupTimeout = 30 * time.Second
)

// Task is one container with its init process and the processes exec'd into it.
type Task struct {
	id    string
	stdio Stdio
	emit  Emitter

	// ops admits one exclusive operation or any number of shared ones. It is a
	// semaphore rather than a mutex so that a caller's deadline ends its wait.
	ops *semaphore.Weighted

	// exited is closed when the init's exit has been reported.
	exited chan struct{}

	// mu guards the fields below. It is not held across calls to init or emit's
	// consumers; Emit itself only queues and is called under it, because the
	// order of the queue must be the order of the states.
	mu    sync.Mutex
	state State
	init  Init
	// exit is init's; valid from Stopped on.
	exit Exit
	// pending is an exit that arrived before it may be reported: during Start,
	// or while exec'd processes are still to report theirs.
	pending *Exit
	execs   map[string]*execProcess
	// liveExecs counts exec'd processes that have been started and whose exit
	// has not been reported.
	liveExecs int
}

// Info is what the outside may know of a process.
type Info struct {
	ID, ExecID string
	State      State
	PID        int
	Stdio      Stdio
	Exit       Exit
}

func newTask(id string, stdio Stdio, emit Emitter) *Task {
	return &Task{
		id:     id,
		stdio:  stdio,
		emit:   emit,
		ops:    semaphore.NewWeighted(exclusive),
		exited: make(chan struct{}),
		execs:  make(map[string]*execProcess),
	}
}

// created makes the task visible: its init waits for Start.
func (t *Task) created(init Init, detail any) {
	t.mu.Lock()
	t.init = init
	t.state = Created
	t.emit.Emit(CreatedEvent{ID: t.id, PID: init.PID(), Detail: detail})
	t.mu.Unlock()
	go func() { t.initExited(init.Wait()) }()
}

// ID is the task's ID, which is its container's.
func (t *Task) ID() string { return t.id }

// Init is the task's container with its first process.
func (t *Task) Init() Init {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.init
}

// operation is one that begin has admitted.
type operation struct {
	init Init
	// before is the state in which it was admitted.
	before State
	// end lets the next one in.
	end func()
}

// begin admits op: it waits for its turn and checks that the state allows op.
func (t *Task) begin(ctx context.Context, op Op, weight int64) (operation, error) {
	return t.admit(ctx, op, weight, nil)
}

// beginAs admits an exclusive op and moves the task to the transitional state
// that settle ends. Between the two an exit is noted, but not reported.
func (t *Task) beginAs(ctx context.Context, op Op, during func(Init) State) (operation, error) {
	return t.admit(ctx, op, exclusive, during)
}

// admit is begin and, with during, beginAs.
func (t *Task) admit(ctx context.Context, op Op, weight int64, during func(Init) State) (operation, error) {
	// The dead are turned away at once: they need not wait for a long
	// operation only to be told so.
	if s := t.stateNow(); s == Stopped || s == Deleted {
		if err := s.check(t.id, op); err != nil {
			return operation{}, err
		}
	}
	if err := t.ops.Acquire(ctx, weight); err != nil {
		return operation{}, fmt.Errorf("%s task %s: wait for another operation on it: %w", op, t.id, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.state.check(t.id, op); err != nil {
		t.ops.Release(weight)
		return operation{}, err
	}
	o := operation{init: t.init, before: t.state, end: func() { t.ops.Release(weight) }}
	if during != nil {
		// Under the same lock, so that no exit is reported between the two.
		t.state = during(t.init)
	}
	return o, nil
}

// stateNow returns the state under the lock.
func (t *Task) stateNow() State {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.state
}

// settle ends an operation: the state becomes next, an event is queued if there
// is one, and then, not before, an exit that came in the meantime is reported.
// If the exit has been reported already, as it may be where the operation set
// no transitional state, nothing is told after it.
func (t *Task) settle(next State, ev Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.state == Stopped {
		return
	}
	if ev != nil {
		t.emit.Emit(ev)
	}
	t.state = next
	t.reportL()
}

// Start lets the program run. It returns the pid, which after a fallback is
// not the one that Create answered. If it fails the init ends, and the task is
// then stopped.
func (t *Task) Start(ctx context.Context) (int, error) {
	o, err := t.beginAs(ctx, OpStart, func(i Init) State {
		if i.Restores() {
			return Restoring
		}
		return Starting
	})
	if err != nil {
		return 0, err
	}
	defer o.end()
	if err := o.init.Start(ctx); err != nil {
		t.settle(Created, nil)
		return 0, fmt.Errorf("start task %s: %w", t.id, err)
	}
	pid := o.init.PID()
	t.settle(Running, StartedEvent{ID: t.id, PID: pid})
	return pid, nil
}

// Pause freezes the task.
func (t *Task) Pause(ctx context.Context) error {
	o, err := t.beginAs(ctx, OpPause, func(Init) State { return Pausing })
	if err != nil {
		return err
	}
	defer o.end()
	if err := o.init.Pause(ctx); err != nil {
		t.settle(Running, nil)
		return fmt.Errorf("pause task %s: %w", t.id, err)
	}
	t.settle(Paused, PausedEvent{ID: t.id})
	return nil
}

// Resume thaws the task.
func (t *Task) Resume(ctx context.Context) error {
	o, err := t.begin(ctx, OpResume, exclusive)
	if err != nil {
		return err
	}
	defer o.end()
	if err := o.init.Resume(ctx); err != nil {
		return fmt.Errorf("resume task %s: %w", t.id, err)
	}
	t.settle(Running, ResumedEvent{ID: t.id})
	return nil
}

// Capture runs fn, which takes a checkpoint, while no other operation runs on
// the task. fn is told whether the task was paused before, and must leave it
// as it found it or end it; a task that fn ended is reported by its exit. fn
// returns what the checkpoint is to be called in the event, or nothing if it is not
// registered yet: Captured then tells.
func (t *Task) Capture(ctx context.Context, fn func(ctx context.Context, wasPaused bool) (string, error)) error {
	o, err := t.beginAs(ctx, OpCapture, func(Init) State { return Capturing })
	if err != nil {
		return err
	}
	defer o.end()
	name, err := fn(ctx, o.before == Paused)
	if err != nil {
		t.settle(o.before, nil)
		return fmt.Errorf("checkpoint task %s: %w", t.id, err)
	}
	var ev Event
	if name != "" {
		ev = CheckpointedEvent{ID: t.id, Checkpoint: name, At: time.Now()}
	}
	t.settle(o.before, ev)
	return nil
}

// Captured tells of a checkpoint that Capture took and that is registered by now. Of a
// task that has ended meanwhile nothing more is told.
func (t *Task) Captured(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.state != Stopped && t.state != Deleted {
		t.emit.Emit(CheckpointedEvent{ID: t.id, Checkpoint: name, At: time.Now()})
	}
}

// Aside runs fn, which looks at the running program or runs something beside it, as an
// exec would be run: not during a capture, nor while the task is paused. Nothing
// of it is told to the outside.
func (t *Task) Aside(ctx context.Context, fn func(context.Context) error) error {
	o, err := t.begin(ctx, OpExec, shared)
	if err != nil {
		return err
	}
	defer o.end()
	return fn(ctx)
}

// Update applies resources to the container. Updates exclude each other: each
// lays its fields over those of the one before.
func (t *Task) Update(ctx context.Context, r *specs.LinuxResources) error {
	o, err := t.begin(ctx, OpUpdate, exclusive)
	if err != nil {
		return err
	}
	defer o.end()
	if err := o.init.Update(ctx, r); err != nil {
		return fmt.Errorf("update task %s: %w", t.id, err)
	}
	return nil
}

// Kill sends sig to init, to an exec'd process, or with all to every process.
// It never waits for another operation.
func (t *Task) Kill(ctx context.Context, execID string, sig unix.Signal, all bool) error {
	t.mu.Lock()
	if execID != "" {
		e, err := t.execL(execID)
		t.mu.Unlock()
		if err != nil {
			return err
		}
		return e.kill(ctx, sig)
	}
	err := t.state.check(t.id, OpKill)
	init, ended := t.init, t.state == Stopped
	t.mu.Unlock()
	if ended && all {
		// All that is left of it has been ended before its exit was told.
		return nil
	}
	if err != nil {
		return err
	}
	if all {
		err = init.SignalAll(ctx, sig)
	} else {
		err = init.Signal(ctx, sig)
	}
	if err != nil {
		return fmt.Errorf("kill task %s with signal %d: %w", t.id, sig, err)
	}
	return nil
}

// delete removes the container. Valid when created or stopped.
func (t *Task) delete(ctx context.Context) (Exit, error) {
	o, err := t.begin(ctx, OpDelete, exclusive)
	if err != nil {
		return Exit{}, err
	}
	defer o.end()
	init := o.init
	// Once begun, a delete is finished even if its caller goes away: half a
	// delete leaves mounts and cgroups that nobody will ask for again.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	if o.before == Created {
		// The init of a task that was never started must be gone before its files are.
		if err := init.Signal(ctx, unix.SIGKILL); err != nil && !errdefs.IsNotFound(err) {
			return Exit{}, fmt.Errorf("delete task %s: end its init: %w", t.id, err)
		}
		select {
		case <-t.exited:
		case <-ctx.Done():
			return Exit{}, fmt.Errorf("delete task %s: its init did not end: %w", t.id, ctx.Err())
		}
	}
	drain, cancelDrain := context.WithTimeout(ctx, drainTimeout)
	defer cancelDrain()
	if err := errors.Join(init.Close(drain), t.closeExecs(drain)); err != nil {
		return Exit{}, fmt.Errorf("delete task %s: %w", t.id, err)
	}
	if err := init.Destroy(ctx); err != nil {
		return Exit{}, fmt.Errorf("delete task %s: %w", t.id, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.state = Deleted
	t.emit.Emit(DeletedEvent{ID: t.id, Exit: t.exit})
	return t.exit, nil
}

// initExited takes note that init has exited.
func (t *Task) initExited(exit Exit) {
	ctx, cancel := context.WithTimeout(context.Background(), cleanupTimeout)
	defer cancel()
	t.mu.Lock()
	init := t.init
	t.mu.Unlock()
	// Processes that survive their init would keep their exec's exit, and so
	// init's, from ever being reported. An error leaves them to Destroy.
	_ = init.KillRest(ctx)

	t.mu.Lock()
	t.pending = &exit
	execs := t.liveExecs
	t.reportL()
	t.mu.Unlock()
	if execs > 0 {
		// One may have started since; from now on none does.
		_ = init.KillRest(ctx)
	}
}

// reportL reports init's exit if it has come and may be told: not while a
// Start or Capture is still to say its word, and after all exec'd processes'.
// Precondition: mu is held.
func (t *Task) reportL() {
	if t.pending == nil || t.liveExecs > 0 {
		return
	}
	switch t.state {
	case Starting, Restoring, Capturing, Pausing:
		return
	}
	t.exit, t.pending = *t.pending, nil
	t.state = Stopped
	t.emit.Emit(ExitedEvent{ID: t.id, Exit: t.exit})
	close(t.exited)
}

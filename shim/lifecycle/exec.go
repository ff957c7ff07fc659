package lifecycle

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// execProcess is a process exec'd into a task. Its fields are guarded by the
// task's mu, but for exited.
type execProcess struct {
	task *Task
	cfg  ExecConfig
	// exited is closed when the exit has been reported.
	exited chan struct{}

	state   State
	process Process
	exit    Exit
}

// execL finds an exec'd process. Precondition: mu is held.
func (t *Task) execL(id string) (*execProcess, error) {
	e, ok := t.execs[id]
	if !ok {
		return nil, fmt.Errorf("process %s in task %s: %w", id, t.id, errdefs.ErrNotFound)
	}
	return e, nil
}

func (e *execProcess) infoL() Info {
	i := Info{ID: e.task.id, ExecID: e.cfg.ID, State: e.state, Stdio: e.cfg.Stdio, Exit: e.exit, PID: e.exit.PID}
	switch {
	case e.process != nil && e.state == Running:
		i.PID = e.process.PID()
		if s := e.task.state; s == Pausing || s == Paused {
			// It is frozen with the container.
			i.State = s
		}
	case e.process == nil && e.state == Stopped:
		// Its start failed: as with the stock shim it reads as never started.
		i.State = Created
	}
	return i
}

// AddExec makes a further process known. It is started by StartExec.
// AlreadyExists if the ID is taken, FailedPrecondition if the task's state
// allows no exec.
func (t *Task) AddExec(cfg ExecConfig) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	// During a capture an exec can be announced; its start then waits.
	if t.state != Capturing {
		if err := t.state.check(t.id, OpExec); err != nil {
			return err
		}
	}
	if _, ok := t.execs[cfg.ID]; ok {
		return fmt.Errorf("process %s in task %s: %w", cfg.ID, t.id, errdefs.ErrAlreadyExists)
	}
	t.execs[cfg.ID] = &execProcess{task: t, cfg: cfg, state: Created, exited: make(chan struct{})}
	t.emit.Emit(ExecAddedEvent{ID: t.id, ExecID: cfg.ID})
	return nil
}

// StartExec starts a process that AddExec made known, and returns its pid. An
// operation that excludes it (a capture, say) is waited for.
func (t *Task) StartExec(ctx context.Context, id string) (int, error) {
	o, err := t.begin(ctx, OpExec, shared)
	if err != nil {
		return 0, err
	}
	defer o.end()

	t.mu.Lock()
	e, err := t.execL(id)
	switch {
	case err != nil:
	case e.state != Created:
		err = fmt.Errorf("cannot start process %s in task %s: it is %s: %w", id, t.id, e.state, errdefs.ErrFailedPrecondition)
	case t.pending != nil:
		err = fmt.Errorf("start process %s in task %s: its init process is not running: %w", id, t.id, errdefs.ErrFailedPrecondition)
	default:
		e.state = Starting
		t.liveExecs++
	}
	t.mu.Unlock()
	if err != nil {
		return 0, err
	}

	p, err := o.init.Exec(ctx, e.cfg)
	if err != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		e.state = Stopped
		e.exit = Exit{Status: exitUnknown}
		t.execGoneL(e)
		return 0, fmt.Errorf("start process %s in task %s: %w", id, t.id, err)
	}
	pid := p.PID()
	t.mu.Lock()
	e.process = p
	e.state = Running
	t.emit.Emit(ExecStartedEvent{ID: t.id, ExecID: id, PID: pid})
	late := t.pending != nil
	t.mu.Unlock()
	// Only now can its exit be reported: after the event of its start.
	go func() { t.execExited(e, p.Wait()) }()
	if late {
		// Init ended meanwhile, and its rest was killed before this process was
		// part of it.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
		defer cancel()
		_ = o.init.KillRest(ctx)
	}
	return pid, nil
}

// exitUnknown is the status of a process that never ran.
const exitUnknown = 255

func (t *Task) execExited(e *execProcess, exit Exit) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e.exit = exit
	e.state = Stopped
	t.emit.Emit(ExitedEvent{ID: t.id, ExecID: e.cfg.ID, Exit: exit})
	t.execGoneL(e)
}

// execGoneL counts an exec'd process out. Precondition: mu is held.
func (t *Task) execGoneL(e *execProcess) {
	t.liveExecs--
	close(e.exited)
	t.reportL()
}

func (e *execProcess) kill(ctx context.Context, sig unix.Signal) error {
	e.task.mu.Lock()
	p, state := e.process, e.state
	e.task.mu.Unlock()
	switch state {
	case Running:
		if err := p.Signal(ctx, sig); err != nil {
			return fmt.Errorf("kill process %s in task %s: %w", e.cfg.ID, e.task.id, err)
		}
		return nil
	case Stopped, Deleted:
		return fmt.Errorf("kill process %s in task %s: process already finished: %w", e.cfg.ID, e.task.id, errdefs.ErrNotFound)
	default:
		return fmt.Errorf("cannot kill process %s in task %s: it is %s: %w", e.cfg.ID, e.task.id, state, errdefs.ErrFailedPrecondition)
	}
}

// DeleteExec forgets an exec'd process. Valid when it is created or stopped.
func (t *Task) DeleteExec(ctx context.Context, id string) (Exit, error) {
	t.mu.Lock()
	e, err := t.execL(id)
	if err == nil && e.state != Created && e.state != Stopped {
		err = fmt.Errorf("cannot delete process %s in task %s: it is %s: %w", id, t.id, e.state, errdefs.ErrFailedPrecondition)
	}
	if err != nil {
		t.mu.Unlock()
		return Exit{}, err
	}
	// One that was never started ended as nothing: status 0, at no time.
	p, exit := e.process, e.exit
	e.forgetL()
	t.mu.Unlock()
	if p != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
		defer cancel()
		if err := p.Close(ctx); err != nil {
			return exit, fmt.Errorf("delete process %s in task %s: %w", id, t.id, err)
		}
	}
	return exit, nil
}

// forgetL makes an exec'd process unknown, and tells those who wait for one that
// was never started. Preconditions: it is created or stopped, and mu is held.
func (e *execProcess) forgetL() {
	if e.state == Created {
		e.exit = Exit{Status: exitUnknown}
		close(e.exited)
	}
	e.state = Deleted
	delete(e.task.execs, e.cfg.ID)
}

// closeExecs forgets the exec'd processes that nobody has deleted, and lets go
// of what is held for them. Precondition: init's exit has been reported.
func (t *Task) closeExecs(ctx context.Context) error {
	t.mu.Lock()
	var ended []Process
	for _, e := range t.execs {
		if e.process != nil {
			ended = append(ended, e.process)
		}
		e.forgetL()
	}
	t.mu.Unlock()
	var errs []error
	for _, p := range ended {
		errs = append(errs, p.Close(ctx))
	}
	return errors.Join(errs...)
}

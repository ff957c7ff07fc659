package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Registry holds the tasks of one shim: one, or those of a pod.
type Registry struct {
	emit Emitter

	// mu guards the fields below.
	mu    sync.Mutex
	tasks map[string]*Task
	// end is what Shutdown is to do when the tasks in creation are gone; or nil.
	end func()
}

// NewRegistry returns an empty registry whose tasks send their events to emit.
func NewRegistry(emit Emitter) *Registry {
	return &Registry{emit: emit, tasks: make(map[string]*Task)}
}

// Create takes the ID, calls launch and makes the task visible when it
// succeeds. detail is handed on with the event. AlreadyExists if the ID is
// taken, even by a task in creation.
func (r *Registry) Create(ctx context.Context, id string, stdio Stdio, detail any, launch func(ctx context.Context, oom func()) (Init, error)) (*Task, error) {
	t := newTask(id, stdio, r.emit)
	r.mu.Lock()
	if _, ok := r.tasks[id]; ok {
		r.mu.Unlock()
		return nil, fmt.Errorf("create task %s: %w", id, errdefs.ErrAlreadyExists)
	}
	r.tasks[id] = t
	r.mu.Unlock()

	init, err := launch(ctx, func() { r.emit.Emit(OOMEvent{ID: id}) })
	if err != nil {
		r.remove(id)
		return nil, fmt.Errorf("create task %s: %w", id, err)
	}
	if err := ctx.Err(); err != nil {
		// The caller has gone, and will never ask for the task again.
		err = errors.Join(err, undo(ctx, init))
		r.remove(id)
		return nil, fmt.Errorf("create task %s: %w", id, err)
	}
	r.mu.Lock()
	r.end = nil
	r.mu.Unlock()
	t.created(init, detail)
	return t, nil
}

// undo removes a container that nobody wants.
func undo(ctx context.Context, init Init) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	err := init.Signal(ctx, unix.SIGKILL)
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("end its init: %w", err)
	}
	init.Wait()
	return errors.Join(init.Close(ctx), init.Destroy(ctx))
}

// Get returns a task that has been created. NotFound otherwise.
func (r *Registry) Get(id string) (*Task, error) {
	r.mu.Lock()
	t, ok := r.tasks[id]
	r.mu.Unlock()
	if !ok || t.stateNow() == Creating {
		return nil, fmt.Errorf("task %s: %w", id, errdefs.ErrNotFound)
	}
	return t, nil
}

// Delete removes a task.
func (r *Registry) Delete(ctx context.Context, id string) (Exit, error) {
	t, err := r.Get(id)
	if err != nil {
		return Exit{}, err
	}
	exit, err := t.delete(ctx)
	if err != nil {
		return exit, err
	}
	r.remove(id)
	return exit, nil
}

func (r *Registry) remove(id string) {
	r.mu.Lock()
	delete(r.tasks, id)
	end := r.end
	if len(r.tasks) > 0 {
		end = nil
	}
	r.mu.Unlock()
	if end != nil {
		end()
	}
}

// Shutdown calls end if no task is left. If all there are are in creation, it
// is called when these have come to nothing: whoever wanted them has gone away
// and will not ask again. With any other task it does nothing.
func (r *Registry) Shutdown(end func()) {
	r.mu.Lock()
	for _, t := range r.tasks {
		if t.stateNow() != Creating {
			r.mu.Unlock()
			return
		}
	}
	if len(r.tasks) > 0 {
		r.end, end = end, nil
	}
	r.mu.Unlock()
	if end != nil {
		end()
	}
}

// Len is the number of tasks, those in creation included.
func (r *Registry) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.tasks)
}

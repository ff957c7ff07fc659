package lifecycle

import (
	"context"
	"fmt"
	"sync"

	"github.com/containerd/errdefs"
)

// Registry holds the tasks of one shim: one, or those of a pod.
type Registry struct {
	emit Emitter

	// mu guards tasks.
	mu    sync.Mutex
	tasks map[string]*Task
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
	t.created(init, detail)
	return t, nil
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
	r.mu.Unlock()
}

// Len is the number of tasks, those in creation included.
func (r *Registry) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.tasks)
}

package task

import (
	"context"
	"net"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/store"
	"github.com/containerd-snap/snap/oci/spec"
	"github.com/containerd-snap/snap/shim/auto"
	"github.com/containerd-snap/snap/shim/lifecycle"
	"github.com/containerd-snap/snap/shim/probe"
	"github.com/containerd-snap/snap/shim/start"
)

// subject is a container that can be captured by itself, as start's can.
type subject interface {
	Init
	Store() *store.Store
	Settings() spec.Settings
	Booted() bool
	Output() *probe.Output
	Dial(ctx context.Context, address string) (net.Conn, error)
	Run(ctx context.Context, args []string) error
	Fingerprint(ctx context.Context) (checkpoint.Fingerprint, error)
	HasTemplate(ctx context.Context, f checkpoint.Fingerprint) (bool, error)
	Take(ctx context.Context, kind checkpoint.Kind, wasPaused bool) (*start.Taken, error)
	NoteCapture(ctx context.Context, c checkpoint.Capture)
}

var (
	_ subject   = (*start.Init)(nil)
	_ auto.Task = watched{}
)

// watched is a task as shim/auto sees it: what it asks of the container goes through the
// core, so that it excludes, and is excluded by, what users ask.
type watched struct {
	subject
	task *lifecycle.Task
}

// watch has the task captured by itself, as its settings ask, as long as it runs.
func watch(ctx context.Context, t *lifecycle.Task, init Init) {
	s, ok := init.(subject)
	if !ok || s.Settings().Capture == (spec.Capture{}) {
		return
	}
	// The task outlives the request that started it.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer cancel()
		_, _ = t.Wait(ctx, "")
	}()
	auto.Watch(ctx, s.Store(), watched{subject: s, task: t})
}

func (w watched) ID() string { return w.task.ID() }

func (w watched) PIDs() ([]int, error) { return w.subject.PIDs(context.Background()) }

func (w watched) Paused() bool {
	i, err := w.task.Info("")
	return err == nil && (i.State == lifecycle.Paused || i.State == lifecycle.Pausing)
}

// Run executes a command in the container, as an exec of a user's would be.
func (w watched) Run(ctx context.Context, args []string) error {
	return w.task.Aside(ctx, func(ctx context.Context) error { return w.subject.Run(ctx, args) })
}

// Capture takes a checkpoint and registers it. Only while it is taken the task stands
// still and other operations on it wait: an exit is told while it is registered.
func (w watched) Capture(ctx context.Context, kind checkpoint.Kind) (checkpoint.Entry, error) {
	var taken *start.Taken
	err := w.task.Capture(ctx, func(ctx context.Context, wasPaused bool) (_ string, err error) {
		taken, err = w.subject.Take(ctx, kind, wasPaused)
		return "", err
	})
	if err != nil {
		return checkpoint.Entry{}, err
	}
	defer taken.Discard(ctx)
	e, err := taken.Register(ctx)
	if err == nil {
		w.task.Captured(e.Digest)
	}
	return e, err
}

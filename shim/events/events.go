// Package events turns the core's events into containerd's and publishes them
// in their order.
package events

import (
	"context"
	"sync"

	eventsapi "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/containerd/v2/core/runtime"
	"github.com/containerd/containerd/v2/pkg/protobuf"
	"github.com/containerd/log"

	"github.com/containerd-snap/snap/shim/lifecycle"
)

// CreateDetail is what a created event tells beside the core's part.
type CreateDetail struct {
	Bundle, Checkpoint string
	Rootfs             []*types.Mount
	Stdio              lifecycle.Stdio
}

// Publish hands one event to containerd, as a Publisher of its shim package does.
type Publish func(ctx context.Context, topic string, event events.Event) error

// Queue takes events without blocking and publishes them one after the other.
type Queue struct {
	publish func(queued)

	// mu guards the fields below.
	mu     sync.Mutex
	events []queued
	closed bool
	// ready has room for one, and one in it whenever there is something to do.
	ready chan struct{}
	done  chan struct{}
}

var _ lifecycle.Emitter = (*Queue)(nil)

// NewQueue publishes with ctx's values until Close.
func NewQueue(ctx context.Context, publish Publish) *Queue {
	ctx = context.WithoutCancel(ctx)
	q := &Queue{ready: make(chan struct{}, 1), done: make(chan struct{})}
	q.publish = func(e queued) {
		// The publisher tries again by itself; an error is for the log only.
		if err := publish(ctx, e.topic, e.event); err != nil {
			log.G(ctx).WithError(err).WithField("topic", e.topic).Error("publish event")
		}
	}
	go q.run()
	return q
}

// queued is an event with its topic.
type queued struct {
	topic string
	event any
}

// Emit queues an event.
func (q *Queue) Emit(e lifecycle.Event) {
	event := convert(e)
	q.add(queued{topic: runtime.GetTopic(event), event: event})
}

// Announce queues an event about a container for which containerd has no type of its own. It
// is a ContainerUpdate, on a topic of ours and with the fields as labels: clients print, and
// filter by, what they know the type of, and nobody knows ours.
func (q *Queue) Announce(topic, id string, fields map[string]string) {
	q.add(queued{topic: topic, event: &eventsapi.ContainerUpdate{ID: id, Labels: fields}})
}

func (q *Queue) add(e queued) {
	q.mu.Lock()
	q.events = append(q.events, e)
	q.mu.Unlock()
	q.wake()
}

func (q *Queue) wake() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

func (q *Queue) run() {
	defer close(q.done)
	for range q.ready {
		q.mu.Lock()
		events, closed := q.events, q.closed
		q.events = nil
		q.mu.Unlock()
		for _, e := range events {
			q.publish(e)
		}
		if closed {
			return
		}
	}
}

// Close publishes what is queued, within ctx, and ends.
func (q *Queue) Close(ctx context.Context) error {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.wake()
	select {
	case <-q.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// convert maps an event of the core to containerd's.
func convert(e lifecycle.Event) any {
	switch e := e.(type) {
	case lifecycle.CreatedEvent:
		d, _ := e.Detail.(CreateDetail)
		return &eventsapi.TaskCreate{
			ContainerID: e.ID,
			Bundle:      d.Bundle,
			Rootfs:      d.Rootfs,
			IO: &eventsapi.TaskIO{
				Stdin:    d.Stdio.Stdin,
				Stdout:   d.Stdio.Stdout,
				Stderr:   d.Stdio.Stderr,
				Terminal: d.Stdio.Terminal,
			},
			Checkpoint: d.Checkpoint,
			Pid:        uint32(e.PID),
		}
	case lifecycle.StartedEvent:
		return &eventsapi.TaskStart{ContainerID: e.ID, Pid: uint32(e.PID)}
	case lifecycle.OOMEvent:
		return &eventsapi.TaskOOM{ContainerID: e.ID}
	case lifecycle.ExitedEvent:
		id := e.ExecID
		if id == "" {
			id = e.ID
		}
		return &eventsapi.TaskExit{
			ContainerID: e.ID,
			ID:          id,
			Pid:         uint32(e.Exit.PID),
			ExitStatus:  uint32(e.Exit.Status),
			ExitedAt:    protobuf.ToTimestamp(e.Exit.At),
		}
	case lifecycle.DeletedEvent:
		return &eventsapi.TaskDelete{
			ContainerID: e.ID,
			Pid:         uint32(e.Exit.PID),
			ExitStatus:  uint32(e.Exit.Status),
			ExitedAt:    protobuf.ToTimestamp(e.Exit.At),
		}
	case lifecycle.ExecAddedEvent:
		return &eventsapi.TaskExecAdded{ContainerID: e.ID, ExecID: e.ExecID}
	case lifecycle.ExecStartedEvent:
		return &eventsapi.TaskExecStarted{ContainerID: e.ID, ExecID: e.ExecID, Pid: uint32(e.PID)}
	case lifecycle.PausedEvent:
		return &eventsapi.TaskPaused{ContainerID: e.ID}
	case lifecycle.ResumedEvent:
		return &eventsapi.TaskResumed{ContainerID: e.ID}
	case lifecycle.CheckpointedEvent:
		return &eventsapi.TaskCheckpointed{ContainerID: e.ID, Checkpoint: e.Checkpoint}
	}
	return nil
}

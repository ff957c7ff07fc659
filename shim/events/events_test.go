package events

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	eventsapi "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/containerd-snap/snap/shim/lifecycle"
)

// published keeps what was published, in its order.
type published struct {
	mu     sync.Mutex
	topics []string
	events []any
	// hold, if set, is waited for before each event.
	hold chan struct{}
	err  error
}

func (p *published) publish(ctx context.Context, topic string, e events.Event) error {
	if p.hold != nil {
		<-p.hold
	}
	if ns, _ := namespaces.Namespace(ctx); ns != "test" {
		return fmt.Errorf("published in namespace %q", ns)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.topics = append(p.topics, topic)
	p.events = append(p.events, e)
	return p.err
}

func TestConversion(t *testing.T) {
	at := time.Unix(1700000000, 42)
	exit := lifecycle.Exit{PID: 7, Status: 137, At: at}
	stdio := lifecycle.Stdio{Stdin: "/in", Stdout: "/out", Stderr: "/err", Terminal: true}
	rootfs := []*types.Mount{{Type: "overlay", Source: "overlay", Options: []string{"lowerdir=/l"}}}
	cases := []struct {
		in    lifecycle.Event
		topic string
		want  proto.Message
	}{
		{
			lifecycle.CreatedEvent{ID: "t", PID: 7, Detail: CreateDetail{Bundle: "/b", Checkpoint: "/c", Rootfs: rootfs, Stdio: stdio}},
			"/tasks/create",
			&eventsapi.TaskCreate{
				ContainerID: "t", Bundle: "/b", Checkpoint: "/c", Rootfs: rootfs, Pid: 7,
				IO: &eventsapi.TaskIO{Stdin: "/in", Stdout: "/out", Stderr: "/err", Terminal: true},
			},
		},
		{lifecycle.CreatedEvent{ID: "t", PID: 7}, "/tasks/create", &eventsapi.TaskCreate{ContainerID: "t", Pid: 7, IO: &eventsapi.TaskIO{}}},
		{lifecycle.StartedEvent{ID: "t", PID: 7}, "/tasks/start", &eventsapi.TaskStart{ContainerID: "t", Pid: 7}},
		{lifecycle.OOMEvent{ID: "t"}, "/tasks/oom", &eventsapi.TaskOOM{ContainerID: "t"}},
		{
			lifecycle.ExitedEvent{ID: "t", Exit: exit}, "/tasks/exit",
			&eventsapi.TaskExit{ContainerID: "t", ID: "t", Pid: 7, ExitStatus: 137, ExitedAt: timestamppb.New(at)},
		},
		{
			lifecycle.ExitedEvent{ID: "t", ExecID: "e", Exit: exit}, "/tasks/exit",
			&eventsapi.TaskExit{ContainerID: "t", ID: "e", Pid: 7, ExitStatus: 137, ExitedAt: timestamppb.New(at)},
		},
		{
			lifecycle.DeletedEvent{ID: "t", Exit: exit}, "/tasks/delete",
			&eventsapi.TaskDelete{ContainerID: "t", Pid: 7, ExitStatus: 137, ExitedAt: timestamppb.New(at)},
		},
		{lifecycle.ExecAddedEvent{ID: "t", ExecID: "e"}, "/tasks/exec-added", &eventsapi.TaskExecAdded{ContainerID: "t", ExecID: "e"}},
		{lifecycle.ExecStartedEvent{ID: "t", ExecID: "e", PID: 8}, "/tasks/exec-started", &eventsapi.TaskExecStarted{ContainerID: "t", ExecID: "e", Pid: 8}},
		{lifecycle.PausedEvent{ID: "t"}, "/tasks/paused", &eventsapi.TaskPaused{ContainerID: "t"}},
		{lifecycle.ResumedEvent{ID: "t"}, "/tasks/resumed", &eventsapi.TaskResumed{ContainerID: "t"}},
		{lifecycle.CheckpointedEvent{ID: "t", Checkpoint: "c", At: at}, "/tasks/checkpointed", &eventsapi.TaskCheckpointed{ContainerID: "t", Checkpoint: "c"}},
	}
	p := &published{}
	q := NewQueue(namespaces.WithNamespace(t.Context(), "test"), p.publish)
	for _, c := range cases {
		q.Emit(c.in)
	}
	if err := q.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(p.events) != len(cases) {
		t.Fatalf("%d events of %d were published", len(p.events), len(cases))
	}
	for n, c := range cases {
		got, ok := p.events[n].(proto.Message)
		if !ok || p.topics[n] != c.topic || !proto.Equal(got, c.want) {
			t.Errorf("%T became %s %v, want %s %v", c.in, p.topics[n], got, c.topic, c.want)
		}
	}
}

// Emit never waits for containerd; the order is kept, and Close drains.
func TestEmitDoesNotBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &published{hold: make(chan struct{})}
		q := NewQueue(namespaces.WithNamespace(t.Context(), "test"), p.publish)
		const n = 500
		for pid := range n {
			q.Emit(lifecycle.StartedEvent{ID: "t", PID: pid})
		}
		synctest.Wait()
		closed := make(chan error, 1)
		go func() { closed <- q.Close(t.Context()) }()
		synctest.Wait()
		select {
		case err := <-closed:
			t.Fatalf("Close did not drain: %v", err)
		default:
		}
		close(p.hold)
		if err := <-closed; err != nil {
			t.Fatal(err)
		}
		if len(p.events) != n {
			t.Fatalf("%d events of %d", len(p.events), n)
		}
		for pid, e := range p.events {
			if s, ok := e.(*eventsapi.TaskStart); !ok || int(s.GetPid()) != pid {
				t.Fatalf("event %d is %v", pid, e)
			}
		}
	})
}

// The events of one emitter keep their order, whatever others emit.
func TestOrderAmongEmitters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &published{}
		q := NewQueue(namespaces.WithNamespace(t.Context(), "test"), p.publish)
		var wg sync.WaitGroup
		for task := range 8 {
			wg.Go(func() {
				for pid := range 200 {
					q.Emit(lifecycle.StartedEvent{ID: strconv.Itoa(task), PID: pid})
				}
			})
		}
		wg.Wait()
		if err := q.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		next := make(map[string]uint32)
		for _, e := range p.events {
			s, ok := e.(*eventsapi.TaskStart)
			if !ok || s.GetPid() != next[s.GetContainerID()] {
				t.Fatalf("%v, want pid %d", e, next[s.GetContainerID()])
			}
			next[s.GetContainerID()]++
		}
		if len(p.events) != 8*200 {
			t.Errorf("%d events", len(p.events))
		}
	})
}

// An event that cannot be published does not hold back those after it, and the
// queue outlives the context that it was made with.
func TestPublishErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &published{err: errors.New("no containerd")}
		ctx, cancel := context.WithCancel(namespaces.WithNamespace(t.Context(), "test"))
		q := NewQueue(ctx, func(ctx context.Context, topic string, e events.Event) error {
			if err := ctx.Err(); err != nil {
				t.Error(err)
			}
			return p.publish(ctx, topic, e)
		})
		cancel()
		q.Emit(lifecycle.PausedEvent{ID: "t"})
		q.Emit(lifecycle.ResumedEvent{ID: "t"})
		if err := q.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(p.events) != 2 {
			t.Errorf("%d events", len(p.events))
		}
	})
}

func TestCloseGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &published{hold: make(chan struct{})}
		q := NewQueue(t.Context(), p.publish)
		q.Emit(lifecycle.PausedEvent{ID: "t"})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := q.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close: %v", err)
		}
		close(p.hold)
		if err := q.Close(t.Context()); err != nil {
			t.Errorf("a second Close: %v", err)
		}
	})
}

// What is announced keeps its place among the events of tasks, and can be filtered as
// containerd's own.
func TestAnnounce(t *testing.T) {
	p := &published{}
	q := NewQueue(namespaces.WithNamespace(t.Context(), "test"), p.publish)
	q.Emit(lifecycle.StartedEvent{ID: "t", PID: 1})
	q.Announce("/snap/start", "t", map[string]string{"outcome": "boot"})
	q.Emit(lifecycle.OOMEvent{ID: "t"})
	if err := q.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(p.topics); got != "[/tasks/start /snap/start /tasks/oom]" {
		t.Fatalf("published %s", got)
	}
	e, ok := p.events[1].(*eventsapi.ContainerUpdate)
	if outcome, _ := e.Field([]string{"labels", "outcome"}); !ok || e.GetID() != "t" || outcome != "boot" {
		t.Errorf("%v", p.events[1])
	}
}

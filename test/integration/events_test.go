package integration

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	eventsapi "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/typeurl/v2"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/shim/capture"
	"github.com/containerd-snap/snap/test/harness"
)

// recording is what containerd tells of one container, in its order.
type recording struct {
	// mu guards said.
	mu   sync.Mutex
	said []string
}

// recordEvents listens to what the node tells of the tasks of a container.
func recordEvents(t *testing.T, n *harness.Node, id string) *recording {
	t.Helper()
	r := &recording{}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	messages, errs := n.Client().EventService().Subscribe(ctx, `topic~="^/tasks/"`)
	go func() {
		for {
			select {
			case m := <-messages:
				if of, text := describe(m); of == id {
					r.mu.Lock()
					r.said = append(r.said, text)
					r.mu.Unlock()
				}
			case <-errs:
				return
			}
		}
	}()
	return r
}

// describe returns which container an event is of, and the event in words.
func describe(m *events.Envelope) (id, text string) {
	v, err := typeurl.UnmarshalAny(m.Event)
	if err != nil {
		return "", err.Error()
	}
	switch e := v.(type) {
	case *eventsapi.TaskCreate:
		return e.ContainerID, "create"
	case *eventsapi.TaskStart:
		return e.ContainerID, "start"
	case *eventsapi.TaskExecAdded:
		return e.ContainerID, "exec added"
	case *eventsapi.TaskExecStarted:
		return e.ContainerID, "exec started"
	case *eventsapi.TaskExit:
		if e.ID != e.ContainerID {
			return e.ContainerID, fmt.Sprintf("exec exit %d", e.ExitStatus)
		}
		return e.ContainerID, fmt.Sprintf("exit %d", e.ExitStatus)
	case *eventsapi.TaskDelete:
		if e.ID != "" && e.ID != e.ContainerID {
			return e.ContainerID, "exec delete"
		}
		return e.ContainerID, "delete"
	case *eventsapi.TaskOOM:
		return e.ContainerID, "oom"
	case *eventsapi.TaskPaused:
		return e.ContainerID, "paused"
	case *eventsapi.TaskResumed:
		return e.ContainerID, "resumed"
	case *eventsapi.TaskCheckpointed:
		return e.ContainerID, "checkpointed"
	}
	return "", fmt.Sprintf("%T", v)
}

func (r *recording) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.said)
}

// mustBe waits until the last of want has been told, and compares.
func (r *recording) mustBe(t *testing.T, want ...string) {
	t.Helper()
	eventually(t, func() error {
		if got := r.all(); !slices.Contains(got, want[len(want)-1]) {
			return fmt.Errorf("events %q, want %q", got, want)
		}
		return nil
	})
	if got := r.all(); !slices.Equal(got, want) {
		t.Errorf("events %q, want %q", got, want)
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"booted", "restored"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			w := probeOf()
			if how == "restored" {
				a := start(t, shared, w)
				a.Probe()
				a.MustCapture(capture.Request{})
			}
			w.ID = fmt.Sprintf("events%d", serial())
			r := recordEvents(t, shared, w.ID)
			c := start(t, shared, w)
			if how == "restored" && c.Record().Outcome != checkpoint.Restore {
				t.Fatal("not restored")
			}
			c.Probe()
			ctx := testContext(t)
			if err := c.Task.Pause(ctx); err != nil {
				t.Fatal(err)
			}
			if err := c.Task.Resume(ctx); err != nil {
				t.Fatal(err)
			}
			e := c.NewExec(false, "sleep", "1000")
			if err := e.Start(ctx); err != nil {
				t.Fatal(err)
			}
			c.MustCapture(capture.Request{})
			c.Kill(unix.SIGKILL)
			c.Wait()
			<-e.Exit
			if _, err := e.Delete(ctx); err != nil {
				t.Error(err)
			}
			c.DeleteTask()
			r.mustBe(t, "create", "start", "paused", "resumed", "exec added", "exec started", "checkpointed", "exec exit 137", "exit 137", "delete")
		})
	}
}

// TestShortLife: even a program that ends at once was started before it exited.
func TestShortLife(t *testing.T) {
	t.Parallel()
	w := shell("exit 3")
	w.ID = fmt.Sprintf("short%d", serial())
	r := recordEvents(t, shared, w.ID)
	c := start(t, shared, w)
	c.Wait()
	c.DeleteTask()
	r.mustBe(t, "create", "start", "exit 3", "delete")
}

func TestOOM(t *testing.T) {
	t.Parallel()
	w := shell("x=a; while true; do x=$x$x; done", oci.WithMemoryLimit(20<<20))
	w.ID = fmt.Sprintf("oom%d", serial())
	r := recordEvents(t, shared, w.ID)
	c := start(t, shared, w)
	if got := c.Wait(); got != 137 {
		t.Errorf("exit status %d", got)
	}
	c.DeleteTask()
	r.mustBe(t, "create", "start", "oom", "exit 137", "delete")
}

package task

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	apitypes "github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/containerd-snap/snap/shim/capture"
	"github.com/containerd-snap/snap/shim/lifecycle"
	"github.com/containerd-snap/snap/shim/start"
)

type discard struct{}

func (discard) Emit(lifecycle.Event) {}

func newService(t *testing.T) *Service {
	t.Helper()
	return New(LaunchBy(&start.Starter{Namespace: "test"}), discard{}, func() {})
}

// Every state of the core has a status, and a task that is captured runs for its user.
func TestStatus(t *testing.T) {
	for s, want := range map[lifecycle.State]task.Status{
		lifecycle.Creating:  task.Status_UNKNOWN,
		lifecycle.Created:   task.Status_CREATED,
		lifecycle.Starting:  task.Status_CREATED,
		lifecycle.Restoring: task.Status_CREATED,
		lifecycle.Running:   task.Status_RUNNING,
		lifecycle.Capturing: task.Status_RUNNING,
		lifecycle.Pausing:   task.Status_PAUSING,
		lifecycle.Paused:    task.Status_PAUSED,
		lifecycle.Stopped:   task.Status_STOPPED,
		lifecycle.Deleted:   task.Status_STOPPED,
	} {
		if got := status(s); got != want {
			t.Errorf("%s is %s, want %s", s, got, want)
		}
	}
}

// The one place where errors become codes: a class that is lost there is
// Unknown to every client.
func TestErrorsBecomeCodes(t *testing.T) {
	intercept := newService(t).UnaryServerInterceptor()
	for err, want := range map[error]codes.Code{
		errdefs.ErrNotFound:           codes.NotFound,
		errdefs.ErrFailedPrecondition: codes.FailedPrecondition,
		errdefs.ErrAlreadyExists:      codes.AlreadyExists,
		errdefs.ErrInvalidArgument:    codes.InvalidArgument,
		errdefs.ErrNotImplemented:     codes.Unimplemented,
		context.DeadlineExceeded:      codes.DeadlineExceeded,
		context.Canceled:              codes.Canceled,
		errors.New("no luck"):         codes.Unknown,
	} {
		wrapped := fmt.Errorf("start task t: %w", errors.Join(errors.New("words"), err))
		resp, got := intercept(t.Context(), nil, nil, func(context.Context, func(any) error) (any, error) { return "half an answer", wrapped })
		if grpcstatus.Code(got) != want || resp != nil || !strings.Contains(got.Error(), "start task t: words") {
			t.Errorf("%v became %v with %v", err, got, resp)
		}
	}
	method := ttrpc.Method(func(context.Context, func(any) error) (any, error) { return "answer", nil })
	if resp, err := intercept(t.Context(), nil, nil, method); resp != "answer" || err != nil {
		t.Errorf("%v, %v", resp, err)
	}
}

// Each method says of a task that does not exist that it does not.
func TestNoSuchTask(t *testing.T) {
	s, ctx := newService(t), t.Context()
	for name, err := range map[string]error{
		"Start":      second(s.Start(ctx, &taskapi.StartRequest{ID: "x"})),
		"Delete":     second(s.Delete(ctx, &taskapi.DeleteRequest{ID: "x"})),
		"Exec":       second(s.Exec(ctx, &taskapi.ExecProcessRequest{ID: "x", ExecID: "e"})),
		"ResizePty":  second(s.ResizePty(ctx, &taskapi.ResizePtyRequest{ID: "x"})),
		"State":      second(s.State(ctx, &taskapi.StateRequest{ID: "x"})),
		"Pause":      second(s.Pause(ctx, &taskapi.PauseRequest{ID: "x"})),
		"Resume":     second(s.Resume(ctx, &taskapi.ResumeRequest{ID: "x"})),
		"Kill":       second(s.Kill(ctx, &taskapi.KillRequest{ID: "x", Signal: 9})),
		"Pids":       second(s.Pids(ctx, &taskapi.PidsRequest{ID: "x"})),
		"CloseIO":    second(s.CloseIO(ctx, &taskapi.CloseIORequest{ID: "x"})),
		"Update":     second(s.Update(ctx, &taskapi.UpdateTaskRequest{ID: "x"})),
		"Wait":       second(s.Wait(ctx, &taskapi.WaitRequest{ID: "x"})),
		"Stats":      second(s.Stats(ctx, &taskapi.StatsRequest{ID: "x"})),
		"Checkpoint": second(s.Checkpoint(ctx, &taskapi.CheckpointTaskRequest{ID: "x", Path: "/p"})),
		"capture":    second(s.capture(ctx, capture.Request{ID: "x"})),
	} {
		if !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "task x") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if resp, err := s.Connect(ctx, &taskapi.ConnectRequest{ID: "x"}); err != nil || resp.GetTaskPid() != 0 || resp.GetShimPid() == 0 {
		t.Errorf("Connect: %v, %v", resp, err)
	}
}

func second[T any](_ T, err error) error { return err }

// Bad input is refused before anything exists, and the ID is free again.
func TestCreateRefuses(t *testing.T) {
	s := newService(t)
	for name, c := range map[string]struct {
		r    *taskapi.CreateTaskRequest
		is   func(error) bool
		says string
	}{
		"foreign options": {
			&taskapi.CreateTaskRequest{ID: "t", Bundle: t.TempDir(), Options: &anypb.Any{TypeUrl: "example.com/X", Value: []byte{1}}},
			errdefs.IsInvalidArgument, "example.com/X",
		},
		"no bundle":         {&taskapi.CreateTaskRequest{ID: "t", Bundle: t.TempDir() + "/gone"}, errdefs.IsNotFound, "gone"},
		"no spec":           {&taskapi.CreateTaskRequest{ID: "t", Bundle: t.TempDir()}, errdefs.IsNotFound, "config.json"},
		"a relative bundle": {&taskapi.CreateTaskRequest{ID: "t", Bundle: "bundle"}, errdefs.IsInvalidArgument, "bundle"},
	} {
		_, err := s.Create(t.Context(), c.r)
		if !c.is(err) || !strings.Contains(err.Error(), "create task t") || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := s.tasks.Len(); n != 0 {
		t.Errorf("%d tasks are left", n)
	}
}

func TestCheckpointOptions(t *testing.T) {
	if o, err := checkpointOptions(nil); err != nil || o.GetExit() {
		t.Errorf("%v, %v", o, err)
	}
	a, err := typeurl.MarshalAnyToProto(&options.CheckpointOptions{Exit: true, WorkPath: "/w"})
	if err != nil {
		t.Fatal(err)
	}
	if o, err := checkpointOptions(a); err != nil || !o.GetExit() || o.GetWorkPath() != "/w" {
		t.Errorf("%v, %v", o, err)
	}
	foreign, err := typeurl.MarshalAnyToProto(&apitypes.Mount{Type: "x"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := checkpointOptions(foreign); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), foreign.GetTypeUrl()) {
		t.Errorf("%v", err)
	}
}

// The shim ends only when nothing is left in it.
func TestShutdown(t *testing.T) {
	ended := 0
	s := New(LaunchBy(&start.Starter{}), discard{}, func() { ended++ })
	launching, launch := make(chan struct{}), make(chan struct{})
	created := make(chan error, 1)
	go func() {
		_, err := s.tasks.Create(t.Context(), "t", lifecycle.Stdio{}, nil, func(context.Context, func()) (lifecycle.Init, error) {
			close(launching)
			<-launch
			return nil, errors.New("no luck")
		})
		created <- err
	}()
	<-launching
	if _, err := s.Shutdown(t.Context(), nil); err != nil || ended != 0 {
		t.Errorf("with a task in creation: ended %d, %v", ended, err)
	}
	close(launch)
	if err := <-created; err == nil {
		t.Error("created")
	}
	if ended != 1 {
		t.Errorf("after the creation has failed: ended %d", ended)
	}
	if _, err := s.Shutdown(t.Context(), nil); err != nil || ended != 2 {
		t.Errorf("with none: ended %d, %v", ended, err)
	}
}

// A server that nobody asks for a task ends, and one of which nobody asks more after its only
// one came to nothing.
func TestUnused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		ended := map[string]int{}
		want := func(want map[string]int) {
			mu.Lock()
			defer mu.Unlock()
			if !maps.Equal(ended, want) {
				t.Errorf("ended %v, want %v", ended, want)
			}
		}
		serve := func(name string, launch Launch) *Service {
			return New(launch, discard{}, func() {
				mu.Lock()
				defer mu.Unlock()
				ended[name]++
			})
		}
		starter := LaunchBy(&start.Starter{})
		serve("unused", starter)
		failed := serve("failed", starter)
		// A Create may take longer than anybody waits for the first.
		busy := serve("busy", func(context.Context, start.Request, func()) (Init, error) {
			time.Sleep(2 * unusedTimeout)
			return nil, errors.New("no luck")
		})
		time.Sleep(unusedTimeout / 2)
		req := &taskapi.CreateTaskRequest{ID: "t", Bundle: t.TempDir()}
		done := make(chan error, 1)
		go func() {
			_, err := busy.Create(t.Context(), req)
			done <- err
		}()
		if _, err := failed.Create(t.Context(), req); err == nil {
			t.Error("a bundle without a spec was accepted")
		}
		time.Sleep(unusedTimeout * 3 / 4)
		synctest.Wait()
		want(map[string]int{"unused": 1})
		if err := <-done; err == nil {
			t.Error("created")
		}
		time.Sleep(2 * unusedTimeout)
		synctest.Wait()
		want(map[string]int{"unused": 1, "failed": 1, "busy": 1})
	})
}

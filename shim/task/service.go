// Package task is the shim's ttrpc edge: it decodes requests of containerd's
// task service, calls the core and encodes its answers. Errors become gRPC
// codes in one place, the interceptor.
package task

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/protobuf"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/shim/capture"
	"github.com/containerd-snap/snap/shim/events"
	"github.com/containerd-snap/snap/shim/idle"
	"github.com/containerd-snap/snap/shim/lifecycle"
	runtimeoptions "github.com/containerd-snap/snap/shim/options"
	"github.com/containerd-snap/snap/shim/start"
)

var _ taskapi.TTRPCTaskService = (*Service)(nil)

var empty = &emptypb.Empty{}

// Service serves the task API, version 3, for the tasks of one shim.
type Service struct {
	tasks  *lifecycle.Registry
	launch Launch
	// shutdown ends the shim.
	shutdown func()
	// unused ends the shim if there is no task for a while: stopped by a Create, set again
	// by one that fails.
	unused *time.Timer
	idle   idle.Trimmer
}

// unusedTimeout is how long a server waits for its first task, or for another one if that
// came to nothing. containerd asks for it as soon as it has the server's address, and
// for the end after a failure; if its caller was killed meanwhile, nobody would ever end the server.
const unusedTimeout = 30 * time.Second

// Init is what the service needs of a container: what the core needs, and captures.
type Init interface {
	lifecycle.Init
	Bundle() string
	Capture(ctx context.Context, req start.Capture, wasPaused bool) (checkpoint.Entry, error)
	Checkpoint(ctx context.Context, req start.PlainCheckpoint, wasPaused bool) error
}

// Launch prepares a task up to the point where only Start is missing.
type Launch func(ctx context.Context, req start.Request, oom func()) (Init, error)

// LaunchBy returns the Launch of a starter.
func LaunchBy(s *start.Starter) Launch {
	return func(ctx context.Context, req start.Request, oom func()) (Init, error) {
		i, err := s.Launch(ctx, req, oom)
		if err != nil {
			return nil, err
		}
		return i, nil
	}
}

// New returns a service whose tasks are started by launch and send their
// events to emit. shutdown is called when containerd asks for it and no task is left.
func New(launch Launch, emit lifecycle.Emitter, shutdown func()) *Service {
	s := &Service{tasks: lifecycle.NewRegistry(emit), launch: launch, shutdown: shutdown}
	s.unused = time.AfterFunc(unusedTimeout, func() {
		if s.tasks.Len() == 0 {
			s.shutdown()
		}
	})
	return s
}

// RegisterTTRPC offers the service on a server.
func (s *Service) RegisterTTRPC(server *ttrpc.Server) error {
	taskapi.RegisterTTRPCTaskService(server, s)
	capture.Register(server, s.capture)
	return nil
}

// UnaryServerInterceptor maps the errors of all methods to gRPC codes.
func (s *Service) UnaryServerInterceptor() ttrpc.UnaryServerInterceptor {
	return func(ctx context.Context, unmarshal ttrpc.Unmarshaler, _ *ttrpc.UnaryServerInfo, method ttrpc.Method) (any, error) {
		resp, err := method(ctx, unmarshal)
		s.idle.Busy()
		if err != nil {
			return nil, errgrpc.ToGRPC(err)
		}
		return resp, nil
	}
}

// Create makes a task: booted or being restored, waiting for Start.
func (s *Service) Create(ctx context.Context, r *taskapi.CreateTaskRequest) (_ *taskapi.CreateTaskResponse, retErr error) {
	s.unused.Stop()
	defer func() {
		if retErr != nil && s.tasks.Len() == 0 {
			s.unused.Reset(unusedTimeout)
		}
	}()
	opts, err := runtimeoptions.Decode(r.GetOptions())
	if err != nil {
		return nil, fmt.Errorf("create task %s: %w", r.ID, err)
	}
	stdio := lifecycle.Stdio{Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr, Terminal: r.Terminal}
	mounts := make([]mount.Mount, 0, len(r.Rootfs))
	for _, m := range r.Rootfs {
		mounts = append(mounts, mount.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options})
	}
	detail := events.CreateDetail{Bundle: r.Bundle, Checkpoint: r.Checkpoint, Rootfs: r.Rootfs, Stdio: stdio}
	t, err := s.tasks.Create(ctx, r.ID, stdio, detail, func(ctx context.Context, oom func()) (lifecycle.Init, error) {
		return s.launch(ctx, start.Request{
			ID:         r.ID,
			Bundle:     r.Bundle,
			Stdio:      stdio,
			Mounts:     mounts,
			Options:    opts,
			Checkpoint: r.Checkpoint,
		}, oom)
	})
	if err != nil {
		return nil, err
	}
	return &taskapi.CreateTaskResponse{Pid: uint32(t.Init().PID())}, nil
}

// Start lets a task or an exec'd process run.
func (s *Service) Start(ctx context.Context, r *taskapi.StartRequest) (*taskapi.StartResponse, error) {
	t, init, err := s.get(r.ID)
	if err != nil {
		return nil, err
	}
	var pid int
	if r.ExecID == "" {
		if pid, err = t.Start(ctx); err == nil {
			watch(ctx, t, init)
		}
	} else {
		pid, err = t.StartExec(ctx, r.ExecID)
	}
	if err != nil {
		return nil, err
	}
	return &taskapi.StartResponse{Pid: uint32(pid)}, nil
}

// Delete removes a task or an exec'd process.
func (s *Service) Delete(ctx context.Context, r *taskapi.DeleteRequest) (*taskapi.DeleteResponse, error) {
	t, err := s.tasks.Get(r.ID)
	if err != nil {
		return nil, err
	}
	var exit lifecycle.Exit
	if r.ExecID == "" {
		exit, err = s.tasks.Delete(ctx, r.ID)
	} else {
		exit, err = t.DeleteExec(ctx, r.ExecID)
	}
	if err != nil {
		return nil, err
	}
	return &taskapi.DeleteResponse{
		Pid:        uint32(exit.PID),
		ExitStatus: uint32(exit.Status),
		ExitedAt:   protobuf.ToTimestamp(exit.At),
	}, nil
}

// Exec makes a further process known.
func (s *Service) Exec(_ context.Context, r *taskapi.ExecProcessRequest) (*emptypb.Empty, error) {
	t, err := s.tasks.Get(r.ID)
	if err != nil {
		return nil, err
	}
	var p specs.Process
	if err := json.Unmarshal(r.GetSpec().GetValue(), &p); err != nil {
		return nil, fmt.Errorf("decode the spec of process %s: %w: %w", r.ExecID, err, errdefs.ErrInvalidArgument)
	}
	if len(p.Args) == 0 || p.Cwd == "" {
		return nil, fmt.Errorf("the spec of process %s lacks args or cwd: %w", r.ExecID, errdefs.ErrInvalidArgument)
	}
	return empty, t.AddExec(lifecycle.ExecConfig{
		ID:    r.ExecID,
		Spec:  &p,
		Stdio: lifecycle.Stdio{Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr, Terminal: r.Terminal},
	})
}

// ResizePty sets the size of a terminal.
func (s *Service) ResizePty(_ context.Context, r *taskapi.ResizePtyRequest) (*emptypb.Empty, error) {
	t, err := s.tasks.Get(r.ID)
	if err != nil {
		return nil, err
	}
	return empty, t.Resize(r.ExecID, r.Width, r.Height)
}

// State describes a process.
func (s *Service) State(_ context.Context, r *taskapi.StateRequest) (*taskapi.StateResponse, error) {
	t, init, err := s.get(r.ID)
	if err != nil {
		return nil, err
	}
	i, err := t.Info(r.ExecID)
	if err != nil {
		return nil, err
	}
	id := i.ID
	if i.ExecID != "" {
		id = i.ExecID
	}
	return &taskapi.StateResponse{
		ID:         id,
		Bundle:     init.Bundle(),
		Pid:        uint32(i.PID),
		Status:     status(i.State),
		Stdin:      i.Stdio.Stdin,
		Stdout:     i.Stdio.Stdout,
		Stderr:     i.Stdio.Stderr,
		Terminal:   i.Stdio.Terminal,
		ExitStatus: uint32(i.Exit.Status),
		ExitedAt:   protobuf.ToTimestamp(i.Exit.At),
	}, nil
}

// status maps a state to what the task API knows. While a checkpoint is taken
// the task counts as running: for its user it does.
func status(s lifecycle.State) task.Status {
	switch s {
	case lifecycle.Created, lifecycle.Starting, lifecycle.Restoring:
		return task.Status_CREATED
	case lifecycle.Running, lifecycle.Capturing:
		return task.Status_RUNNING
	case lifecycle.Pausing:
		return task.Status_PAUSING
	case lifecycle.Paused:
		return task.Status_PAUSED
	case lifecycle.Stopped, lifecycle.Deleted:
		return task.Status_STOPPED
	default:
		return task.Status_UNKNOWN
	}
}

// Pause freezes a task.
func (s *Service) Pause(ctx context.Context, r *taskapi.PauseRequest) (*emptypb.Empty, error) {
	t, err := s.tasks.Get(r.ID)
	if err != nil {
		return nil, err
	}
	return empty, t.Pause(ctx)
}

// Resume thaws a task.
func (s *Service) Resume(ctx context.Context, r *taskapi.ResumeRequest) (*emptypb.Empty, error) {
	t, err := s.tasks.Get(r.ID)
	if err != nil {
		return nil, err
	}
	return empty, t.Resume(ctx)
}

// Kill sends a signal.
func (s *Service) Kill(ctx context.Context, r *taskapi.KillRequest) (*emptypb.Empty, error) {
	t, err := s.tasks.Get(r.ID)
	if err != nil {
		return nil, err
	}
	return empty, t.Kill(ctx, r.ExecID, unix.Signal(r.Signal), r.All)
}

// Pids lists a task's processes.
func (s *Service) Pids(ctx context.Context, r *taskapi.PidsRequest) (*taskapi.PidsResponse, error) {
	t, err := s.tasks.Get(r.ID)
	if err != nil {
		return nil, err
	}
	pids, execIDs, err := t.PIDs(ctx)
	if err != nil {
		return nil, err
	}
	resp := &taskapi.PidsResponse{}
	for _, pid := range pids {
		info := &task.ProcessInfo{Pid: uint32(pid)}
		if id, ok := execIDs[pid]; ok {
			if info.Info, err = typeurl.MarshalAnyToProto(&options.ProcessDetails{ExecID: id}); err != nil {
				return nil, fmt.Errorf("encode the details of process %d: %w", pid, err)
			}
		}
		resp.Processes = append(resp.Processes, info)
	}
	return resp, nil
}

// CloseIO gives a process the end of its input.
func (s *Service) CloseIO(_ context.Context, r *taskapi.CloseIORequest) (*emptypb.Empty, error) {
	t, err := s.tasks.Get(r.ID)
	if err != nil {
		return nil, err
	}
	return empty, t.CloseStdin(r.ExecID)
}

// Update changes a task's resources.
func (s *Service) Update(ctx context.Context, r *taskapi.UpdateTaskRequest) (*emptypb.Empty, error) {
	t, err := s.tasks.Get(r.ID)
	if err != nil {
		return nil, err
	}
	var res specs.LinuxResources
	if err := json.Unmarshal(r.GetResources().GetValue(), &res); err != nil {
		return nil, fmt.Errorf("decode the resources for task %s: %w: %w", r.ID, err, errdefs.ErrInvalidArgument)
	}
	return empty, t.Update(ctx, &res)
}

// Wait waits for a process's exit.
func (s *Service) Wait(ctx context.Context, r *taskapi.WaitRequest) (*taskapi.WaitResponse, error) {
	t, err := s.tasks.Get(r.ID)
	if err != nil {
		return nil, err
	}
	exit, err := t.Wait(ctx, r.ExecID)
	if err != nil {
		return nil, err
	}
	return &taskapi.WaitResponse{ExitStatus: uint32(exit.Status), ExitedAt: protobuf.ToTimestamp(exit.At)}, nil
}

// Stats reads the metrics of a task's cgroup.
func (s *Service) Stats(_ context.Context, r *taskapi.StatsRequest) (*taskapi.StatsResponse, error) {
	t, err := s.tasks.Get(r.ID)
	if err != nil {
		return nil, err
	}
	stats, err := t.Stats()
	if err != nil {
		return nil, err
	}
	data, err := typeurl.MarshalAnyToProto(stats)
	if err != nil {
		return nil, fmt.Errorf("encode the metrics of task %s: %w", r.ID, err)
	}
	return &taskapi.StatsResponse{Stats: data}, nil
}

// Connect tells the shim's pid and the task's, if there is such a task.
func (s *Service) Connect(_ context.Context, r *taskapi.ConnectRequest) (*taskapi.ConnectResponse, error) {
	resp := &taskapi.ConnectResponse{ShimPid: uint32(os.Getpid())}
	if t, err := s.tasks.Get(r.ID); err == nil {
		resp.TaskPid = uint32(t.Init().PID())
	}
	return resp, nil
}

// Shutdown ends the shim if it has no task left.
func (s *Service) Shutdown(context.Context, *taskapi.ShutdownRequest) (*emptypb.Empty, error) {
	s.tasks.Shutdown(s.shutdown)
	return empty, nil
}

// get finds a task with the init that started it.
func (s *Service) get(id string) (*lifecycle.Task, Init, error) {
	t, err := s.tasks.Get(id)
	if err != nil {
		return nil, nil, err
	}
	init, ok := t.Init().(Init)
	if !ok {
		return nil, nil, fmt.Errorf("task %s was not started by this shim: %w", id, errdefs.ErrInternal)
	}
	return t, init, nil
}

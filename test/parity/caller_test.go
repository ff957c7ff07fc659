package parity

import (
	"context"
	"encoding/json"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types/task"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/anypb"
)

// caller makes calls of the shim for one container and notes the answers, each
// with the state in which the container is afterwards.
type caller struct {
	*container
	api taskapi.TTRPCTaskService
	// id and exec name whom the calls are about.
	id, exec string
	// state is the prefix of what is seen.
	state string
}

func (c *container) caller() *caller {
	return &caller{container: c, api: c.shim(), id: c.ID()}
}

// in tells in which state the following calls are made.
func (k *caller) in(state string) { k.state = state }

// call notes how a call is answered.
func (k *caller) call(name string, f func(ctx context.Context) error) {
	k.Helper()
	err := f(k.shimContext())
	if err != nil {
		k.Logf("%s: %s, %s: %v", k.runtime, k.state, name, err)
	}
	after := "gone"
	if st, err := k.api.State(k.shimContext(), &taskapi.StateRequest{ID: k.id, ExecID: k.exec}); err == nil {
		after = st.GetStatus().String()
	}
	k.see(k.state+": "+name, "%s, then %s", class(err), after)
}

// settles waits until the process has the status.
func (k *caller) settles(want task.Status) {
	k.Helper()
	k.eventually(func() error {
		st, err := k.api.State(k.shimContext(), &taskapi.StateRequest{ID: k.id, ExecID: k.exec})
		if err == nil && st.GetStatus() != want {
			return context.DeadlineExceeded
		}
		return err
	})
}

func encoded(v any) *anypb.Any {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return &anypb.Any{TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Process", Value: data}
}

// end kills the process and waits until it is known to have ended.
func (k *caller) end(name string, all bool) {
	k.Helper()
	_, err := k.api.Kill(k.shimContext(), &taskapi.KillRequest{ID: k.id, ExecID: k.exec, Signal: uint32(unix.SIGKILL), All: all})
	k.seeError(k.state+": "+name, err)
	k.settles(task.Status_STOPPED)
}

// ask notes how a call is answered.
func ask[Q, A any](k *caller, name string, call func(context.Context, Q) (A, error), q Q) {
	k.Helper()
	k.call(name, func(ctx context.Context) error {
		_, err := call(ctx, q)
		return err
	})
}

// The calls.

func (k *caller) State() {
	k.Helper()
	ask(k, "State", k.api.State, &taskapi.StateRequest{ID: k.id, ExecID: k.exec})
}

func (k *caller) Create() {
	k.Helper()
	ask(k, "Create", k.api.Create, &taskapi.CreateTaskRequest{ID: k.id, Bundle: k.bundle()})
}

func (k *caller) Start() {
	k.Helper()
	ask(k, "Start", k.api.Start, &taskapi.StartRequest{ID: k.id, ExecID: k.exec})
}

func (k *caller) Delete() {
	k.Helper()
	ask(k, "Delete", k.api.Delete, &taskapi.DeleteRequest{ID: k.id, ExecID: k.exec})
}

func (k *caller) Kill(name string, sig unix.Signal, all bool) {
	k.Helper()
	ask(k, name, k.api.Kill, &taskapi.KillRequest{ID: k.id, ExecID: k.exec, Signal: uint32(sig), All: all})
}

func (k *caller) Pids() {
	k.Helper()
	ask(k, "Pids", k.api.Pids, &taskapi.PidsRequest{ID: k.id})
}

func (k *caller) Pause() {
	k.Helper()
	ask(k, "Pause", k.api.Pause, &taskapi.PauseRequest{ID: k.id})
}

func (k *caller) Resume() {
	k.Helper()
	ask(k, "Resume", k.api.Resume, &taskapi.ResumeRequest{ID: k.id})
}

func (k *caller) Checkpoint() {
	k.Helper()
	ask(k, "Checkpoint", k.api.Checkpoint, &taskapi.CheckpointTaskRequest{ID: k.id, Path: k.TempDir()})
}

func (k *caller) Exec(name, execID string, spec *anypb.Any) {
	k.Helper()
	ask(k, name, k.api.Exec, &taskapi.ExecProcessRequest{ID: k.id, ExecID: execID, Spec: spec})
}

func (k *caller) ResizePty() {
	k.Helper()
	ask(k, "ResizePty", k.api.ResizePty, &taskapi.ResizePtyRequest{ID: k.id, ExecID: k.exec, Width: 80, Height: 24})
}

func (k *caller) CloseIO() {
	k.Helper()
	ask(k, "CloseIO", k.api.CloseIO, &taskapi.CloseIORequest{ID: k.id, ExecID: k.exec, Stdin: true})
}

func (k *caller) Update(name string, r *anypb.Any) {
	k.Helper()
	ask(k, name, k.api.Update, &taskapi.UpdateTaskRequest{ID: k.id, Resources: r})
}

func (k *caller) Stats() {
	k.Helper()
	ask(k, "Stats", k.api.Stats, &taskapi.StatsRequest{ID: k.id})
}

func (k *caller) Shutdown() {
	k.Helper()
	ask(k, "Shutdown", k.api.Shutdown, &taskapi.ShutdownRequest{ID: k.id})
}

func (k *caller) Connect() {
	k.Helper()
	k.call("Connect", func(ctx context.Context) error {
		r, err := k.api.Connect(ctx, &taskapi.ConnectRequest{ID: k.id})
		if err == nil && r.GetShimPid() == 0 {
			k.Error("Connect tells no pid of the shim")
		}
		return err
	})
}

func (k *caller) Wait() {
	k.Helper()
	k.call("Wait", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		defer cancel()
		_, err := k.api.Wait(ctx, &taskapi.WaitRequest{ID: k.id, ExecID: k.exec})
		return err
	})
}

func sleep() *anypb.Any {
	return encoded(&specs.Process{Args: []string{"sleep", "1000"}, Cwd: "/", Env: []string{"PATH=/bin"}})
}

func memory(limit int64) *anypb.Any {
	return encoded(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}})
}

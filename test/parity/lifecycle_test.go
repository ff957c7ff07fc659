package parity

import (
	"context"
	"encoding/json"
	"testing"
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

// The calls.

func (k *caller) State() {
	k.Helper()
	k.call("State", func(ctx context.Context) error {
		_, err := k.api.State(ctx, &taskapi.StateRequest{ID: k.id, ExecID: k.exec})
		return err
	})
}

func (k *caller) Start() {
	k.Helper()
	k.call("Start", func(ctx context.Context) error {
		_, err := k.api.Start(ctx, &taskapi.StartRequest{ID: k.id, ExecID: k.exec})
		return err
	})
}

func (k *caller) Delete() {
	k.Helper()
	k.call("Delete", func(ctx context.Context) error {
		_, err := k.api.Delete(ctx, &taskapi.DeleteRequest{ID: k.id, ExecID: k.exec})
		return err
	})
}

func (k *caller) Kill(name string, sig unix.Signal, all bool) {
	k.Helper()
	k.call(name, func(ctx context.Context) error {
		_, err := k.api.Kill(ctx, &taskapi.KillRequest{ID: k.id, ExecID: k.exec, Signal: uint32(sig), All: all})
		return err
	})
}

func (k *caller) Pids() {
	k.Helper()
	k.call("Pids", func(ctx context.Context) error {
		_, err := k.api.Pids(ctx, &taskapi.PidsRequest{ID: k.id})
		return err
	})
}

func (k *caller) Pause() {
	k.Helper()
	k.call("Pause", func(ctx context.Context) error {
		_, err := k.api.Pause(ctx, &taskapi.PauseRequest{ID: k.id})
		return err
	})
}

func (k *caller) Resume() {
	k.Helper()
	k.call("Resume", func(ctx context.Context) error {
		_, err := k.api.Resume(ctx, &taskapi.ResumeRequest{ID: k.id})
		return err
	})
}

func (k *caller) Checkpoint() {
	k.Helper()
	k.call("Checkpoint", func(ctx context.Context) error {
		_, err := k.api.Checkpoint(ctx, &taskapi.CheckpointTaskRequest{ID: k.id, Path: k.TempDir()})
		return err
	})
}

func (k *caller) Exec(name, execID string, spec *anypb.Any) {
	k.Helper()
	k.call(name, func(ctx context.Context) error {
		_, err := k.api.Exec(ctx, &taskapi.ExecProcessRequest{ID: k.id, ExecID: execID, Spec: spec})
		return err
	})
}

func (k *caller) ResizePty() {
	k.Helper()
	k.call("ResizePty", func(ctx context.Context) error {
		_, err := k.api.ResizePty(ctx, &taskapi.ResizePtyRequest{ID: k.id, ExecID: k.exec, Width: 80, Height: 24})
		return err
	})
}

func (k *caller) CloseIO() {
	k.Helper()
	k.call("CloseIO", func(ctx context.Context) error {
		_, err := k.api.CloseIO(ctx, &taskapi.CloseIORequest{ID: k.id, ExecID: k.exec, Stdin: true})
		return err
	})
}

func (k *caller) Update(name string, r *anypb.Any) {
	k.Helper()
	k.call(name, func(ctx context.Context) error {
		_, err := k.api.Update(ctx, &taskapi.UpdateTaskRequest{ID: k.id, Resources: r})
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

func (k *caller) Stats() {
	k.Helper()
	k.call("Stats", func(ctx context.Context) error {
		_, err := k.api.Stats(ctx, &taskapi.StatsRequest{ID: k.id})
		return err
	})
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

func (k *caller) Shutdown() {
	k.Helper()
	k.call("Shutdown", func(ctx context.Context) error {
		_, err := k.api.Shutdown(ctx, &taskapi.ShutdownRequest{ID: k.id})
		return err
	})
}

func (k *caller) Create() {
	k.Helper()
	k.call("Create", func(ctx context.Context) error {
		_, err := k.api.Create(ctx, &taskapi.CreateTaskRequest{ID: k.id, Bundle: k.bundle()})
		return err
	})
}

func sleep() *anypb.Any {
	return encoded(&specs.Process{Args: []string{"sleep", "1000"}, Cwd: "/", Env: []string{"PATH=/bin"}})
}

func memory(limit int64) *anypb.Any {
	return encoded(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}})
}

// TestCallsByState asks for everything in every state.
func TestCallsByState(t *testing.T) {
	compare(t, "created", func(s *side) {
		k := s.created(shell("sleep 1000")).caller()
		k.in("created")
		k.State()
		k.Create()
		k.Pause()
		k.Resume()
		k.Checkpoint()
		k.Pids()
		k.Stats()
		k.Connect()
		k.ResizePty()
		k.CloseIO()
		k.Update("Update", memory(64<<20))
		k.Wait()
		k.Shutdown()
		k.Kill("Kill of a signal that it ignores", unix.SIGUSR1, false)
		k.Exec("Exec", "e", sleep())
		k.exec = "e"
		k.in("exec in created")
		k.State()
		k.Start()
		k.exec = ""
		k.in("created")
		k.Start()
	})
	compare(t, "created and killed", func(s *side) {
		k := s.created(shell("sleep 1000")).caller()
		k.in("created")
		k.end("Kill", false)
		k.in("killed before Start")
		k.Start()
		k.Delete()
	})
	compare(t, "created and killed with all", func(s *side) {
		k := s.created(shell("sleep 1000")).caller()
		k.in("created")
		k.end("Kill all", true)
		k.in("killed before Start")
		k.Wait()
	})
	compare(t, "created and deleted", func(s *side) {
		k := s.created(shell("sleep 1000")).caller()
		k.in("created")
		k.Delete()
	})
	compare(t, "running", func(s *side) {
		k := s.started(shell("trap '' USR1; sleep 1000")).caller()
		k.in("running")
		k.State()
		k.Create()
		k.Start()
		k.Delete()
		k.Resume()
		k.Pids()
		k.Stats()
		k.Connect()
		k.ResizePty()
		k.CloseIO()
		k.CloseIO()
		k.Update("Update", memory(64<<20))
		k.Update("Update with no JSON", &anypb.Any{Value: []byte("{")})
		k.Update("Update of what the kernel refuses", encoded(map[string]any{"cpu": map[string]any{"period": 1}}))
		k.Wait()
		k.Shutdown()
		k.Kill("Kill", unix.SIGUSR1, false)
		k.Kill("Kill all", unix.SIGUSR1, true)
		k.Kill("Kill with signal 0", 0, false)
		k.Kill("Kill with no signal of the kernel's", 999, false)
		k.Exec("Exec with no JSON", "bad", &anypb.Any{Value: []byte("{")})
		k.Pause()
		k.in("paused")
		k.State()
		k.Create()
		k.Start()
		k.Pause()
		k.Delete()
		k.Exec("Exec", "x", sleep())
		k.Pids()
		k.Stats()
		k.Connect()
		k.ResizePty()
		k.CloseIO()
		k.Update("Update", memory(60<<20))
		k.Wait()
		k.Shutdown()
		k.Kill("Kill", unix.SIGUSR1, false)
		k.Resume()
		k.in("resumed")
		k.Pause()
		k.in("paused")
		k.end("Kill with SIGKILL", false)
	})
	compare(t, "stopped", func(s *side) {
		k := s.started(shell("exit 3")).caller()
		k.wait()
		for _, state := range []string{"stopped", "deleted"} {
			k.in(state)
			k.State()
			if state == "stopped" {
				k.Create()
			}
			k.Start()
			k.Pause()
			k.Resume()
			k.Checkpoint()
			k.Exec("Exec", "x", sleep())
			k.Pids()
			k.Stats()
			k.Connect()
			k.ResizePty()
			k.CloseIO()
			k.Update("Update", memory(64<<20))
			k.Wait()
			k.Kill("Kill", unix.SIGTERM, false)
			k.Kill("Kill all", unix.SIGTERM, true)
			k.Delete()
		}
	})
}

// TestExecCallsByState does so for a process that is exec'd.
func TestExecCallsByState(t *testing.T) {
	compare(t, "exec", func(s *side) {
		c := s.started(shell("sleep 1000"))
		k := c.caller()
		k.in("unknown exec")
		k.exec = "none"
		k.State()
		k.Start()
		k.Delete()
		k.Kill("Kill", unix.SIGTERM, false)
		k.ResizePty()
		k.CloseIO()
		k.Wait()

		k.exec = "e"
		k.in("exec")
		k.Exec("Exec", "e", sleep())
		k.in("exec created")
		k.Exec("Exec", "e", sleep())
		k.State()
		k.Kill("Kill", unix.SIGTERM, false)
		k.ResizePty()
		k.CloseIO()
		k.Wait()
		k.Pids()
		k.Start()
		k.in("exec running")
		k.State()
		k.Delete()
		k.Exec("Exec", "e", sleep())
		k.ResizePty()
		k.CloseIO()
		k.Wait()
		k.Kill("Kill with signal 0", 0, false)
		k.Pause()
		k.in("exec paused")
		k.State()
		k.Resume()
		k.in("exec running")
		k.end("Kill", false)
		k.in("exec stopped")
		k.State()
		k.Start()
		k.Kill("Kill", unix.SIGTERM, false)
		k.ResizePty()
		k.CloseIO()
		k.Wait()
		k.Delete()
		k.in("exec deleted")
		k.Delete()

		k.exec = "never"
		k.in("exec never started")
		k.Exec("Exec", "never", sleep())
		k.Delete()
	})
	compare(t, "exec when init has ended", func(s *side) {
		c := s.started(shell("sleep 1000"))
		k := c.caller()
		k.in("exec created")
		k.exec = "late"
		k.Exec("Exec", "late", sleep())
		c.must(c.task.Kill(c.context(), unix.SIGKILL))
		c.wait()
		k.in("init has ended")
		k.Start()
		k.Wait()
		k.Delete()
	})
	compare(t, "second start of an exec", func(s *side) {
		c := s.started(shell("sleep 1000"))
		k := c.caller()
		k.in("exec")
		k.exec = "e"
		k.Exec("Exec", "e", sleep())
		k.Start()
		k.Start()
		_, err := k.api.Kill(k.shimContext(), &taskapi.KillRequest{ID: k.id, ExecID: k.exec, Signal: uint32(unix.SIGKILL)})
		s.must(err)
		time.Sleep(200 * time.Millisecond)
		// The stock shim may have died by then.
		_ = c.task.Kill(c.context(), unix.SIGKILL)
		if st := <-c.exit; st.Error() != nil {
			k.see("init's end", "the shim dies")
		} else {
			k.see("init's end", "exit %d", st.ExitCode())
		}
	})
	compare(t, "no such container", func(s *side) {
		k := s.started(shell("sleep 1000")).caller()
		k.id = "none"
		k.in("none")
		k.State()
		k.Start()
		k.Delete()
		k.Pids()
		k.Pause()
		k.Resume()
		k.Checkpoint()
		k.Kill("Kill", unix.SIGTERM, false)
		k.Exec("Exec", "x", sleep())
		k.ResizePty()
		k.CloseIO()
		k.Update("Update", memory(64<<20))
		k.Wait()
		k.Stats()
		k.Connect()
		k.Shutdown()
	})
}

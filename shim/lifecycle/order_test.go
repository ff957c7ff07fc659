package lifecycle

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

var errTest = errors.New("no luck")

// run starts f and returns a channel with its result.
func run(f func() error) <-chan error {
	c := make(chan error, 1)
	go func() { c <- f() }()
	return c
}

// pending fails the test if an operation has ended. Precondition: synctest.Wait.
func pending(t *testing.T, what string, c <-chan error) {
	t.Helper()
	select {
	case err := <-c:
		t.Fatalf("%s did not wait: %v", what, err)
	default:
	}
}

func TestAWholeLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		init := newFakeInit(10)
		reg, task, rec := startTask(t, init)
		startExec(t, task, "e")
		if err := task.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := task.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		capture := func(_ context.Context, wasPaused bool) (string, error) {
			if wasPaused {
				t.Error("a running task was called paused")
			}
			return "c", nil
		}
		if err := task.Capture(t.Context(), capture); err != nil {
			t.Fatal(err)
		}
		init.exec(0).end(3)
		if e, err := task.Wait(t.Context(), "e"); err != nil || e.Status != 3 {
			t.Errorf("Wait for the exec: %v, %v", e, err)
		}
		if e, err := task.DeleteExec(t.Context(), "e"); err != nil || e.Status != 3 || init.exec(0).called("Close") != 1 {
			t.Errorf("DeleteExec: %v, %v", e, err)
		}
		init.end(4)
		if e := waitExit(t, task); e.Status != 4 || e.PID != 10 {
			t.Errorf("Wait for init: %v", e)
		}
		if e, err := reg.Delete(t.Context(), "t"); err != nil || e.Status != 4 {
			t.Errorf("Delete: %v, %v", e, err)
		}
		if init.called("Close") != 1 || init.called("Destroy") != 1 || reg.Len() != 0 {
			t.Errorf("calls %v, %d tasks left", init.calls, reg.Len())
		}
		wantEvents(t, rec, "t created 10", "t started 10", "t/e added", "t/e started 11", "t paused", "t resumed",
			"t checkpointed c", "t/e exited 3", "t exited 4", "t deleted 4")
	})
}

// However short the life of the program, its start is told before its exit.
func TestExitDuringStart(t *testing.T) {
	for _, restores := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			init := newFakeInit(10)
			init.restores = restores
			g := newGate(nil)
			init.on["Start"] = g.pass
			_, task, rec := createTask(t, init)
			started := run(func() error { _, err := task.Start(t.Context()); return err })
			<-g.reached
			if s := task.stateNow(); s != map[bool]State{false: Starting, true: Restoring}[restores] {
				t.Errorf("state %s", s)
			}
			init.end(7)
			synctest.Wait()
			wantEvents(t, rec, "t created 10")
			close(g.open)
			if err := <-started; err != nil {
				t.Error(err)
			}
			if e := waitExit(t, task); e.Status != 7 {
				t.Errorf("exit %v", e)
			}
			wantEvents(t, rec, "t created 10", "t started 10", "t exited 7")
		})
	}
}

// An exec'd process that ends at once, or while its start is still on its way.
func TestExecStartBeforeItsExit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		init := newFakeInit(10)
		init.newExec = func(context.Context, ExecConfig) (Process, error) {
			p := init.addExec()
			p.end(5)
			return p, nil
		}
		_, task, rec := startTask(t, init)
		startExec(t, task, "e")
		if e, err := task.Wait(t.Context(), "e"); err != nil || e.Status != 5 {
			t.Errorf("Wait: %v, %v", e, err)
		}
		init.end(0)
		waitExit(t, task)
		wantEvents(t, rec, "t created 10", "t started 10", "t/e added", "t/e started 11", "t/e exited 5", "t exited 0")
	})
}

// Init's exit is told last, also if processes exec'd into it end later.
func TestInitExitsLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		init := newFakeInit(10)
		init.survives = true
		_, task, rec := startTask(t, init)
		startExec(t, task, "a")
		startExec(t, task, "b")
		init.end(1)
		synctest.Wait()
		if i, err := task.Info(""); err != nil || i.State != Running || i.PID != 10 {
			t.Errorf("%+v, %v", i, err)
		}
		if err := task.AddExec(ExecConfig{ID: "late"}); err != nil {
			t.Fatal(err)
		}
		if _, err := task.StartExec(t.Context(), "late"); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("an exec was started in a container whose init is dead: %v", err)
		}
		init.exec(1).end(2)
		synctest.Wait()
		init.exec(0).end(3)
		waitExit(t, task)
		wantEvents(t, rec, "t created 10", "t started 10", "t/a added", "t/a started 11", "t/b added", "t/b started 12",
			"t/late added", "t/b exited 2", "t/a exited 3", "t exited 1")
	})
}

// A process that joins a container whose init ends meanwhile is ended, or it
// would hold back init's exit for as long as it likes.
func TestExecJoinsADyingContainer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		init := newFakeInit(10)
		g := newGate(nil)
		init.on["Exec"] = g.pass
		_, task, rec := startTask(t, init)
		if err := task.AddExec(ExecConfig{ID: "e"}); err != nil {
			t.Fatal(err)
		}
		exec := run(func() error { _, err := task.StartExec(t.Context(), "e"); return err })
		<-g.reached
		init.end(1)
		synctest.Wait() // init's exit is noted, its rest has been killed.
		close(g.open)
		if err := <-exec; err != nil {
			t.Error(err)
		}
		waitExit(t, task)
		wantEvents(t, rec, "t created 10", "t started 10", "t/e added", "t/e started 11", "t/e exited 137", "t exited 1")
	})
}

// The same, if it joins while the rest is being killed.
func TestExecJoinsDuringKillRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		init := newFakeInit(10)
		init.survives = true
		g := newGate(nil)
		var again bool
		init.on["KillRest"] = func(ctx context.Context) error {
			if again {
				init.survives = false
				return nil
			}
			again = true
			return g.pass(ctx)
		}
		_, task, rec := startTask(t, init)
		init.end(1)
		<-g.reached
		startExec(t, task, "e")
		close(g.open)
		waitExit(t, task)
		wantEvents(t, rec, "t created 10", "t started 10", "t/e added", "t/e started 11", "t/e exited 137", "t exited 1")
	})
}

// An exit that comes during an operation is told after what the operation has to say.
func TestExitDuringOperation(t *testing.T) {
	pause := func(ctx context.Context, task *Task) error { return task.Pause(ctx) }
	for name, c := range map[string]struct {
		method string
		do     func(ctx context.Context, task *Task) error
		err    error
		want   []string
	}{
		"pause":          {"Pause", pause, nil, []string{"t paused", "t exited 9"}},
		"failed pause":   {"Pause", pause, errTest, []string{"t exited 9"}},
		"capture":        {"", nil, nil, []string{"t checkpointed c", "t exited 9"}},
		"failed capture": {"", nil, errTest, []string{"t exited 9"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				init := newFakeInit(10)
				g := newGate(c.err)
				_, task, rec := startTask(t, init)
				do := c.do
				if c.method != "" {
					init.on[c.method] = g.pass
				} else {
					do = func(ctx context.Context, task *Task) error {
						return task.Capture(ctx, func(ctx context.Context, _ bool) (string, error) { return "c", g.pass(ctx) })
					}
				}
				done := run(func() error { return do(t.Context(), task) })
				<-g.reached
				init.end(9)
				synctest.Wait()
				wantEvents(t, rec, "t created 10", "t started 10")
				close(g.open)
				if err := <-done; !errors.Is(err, c.err) {
					t.Error(err)
				}
				waitExit(t, task)
				wantEvents(t, rec, append([]string{"t created 10", "t started 10"}, c.want...)...)
			})
		})
	}
}

// A program that ends at once when it is thawed: nothing is told after its exit.
func TestExitDuringResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		init := newFakeInit(10)
		g := newGate(nil)
		init.on["Resume"] = g.pass
		_, task, rec := startTask(t, init)
		if err := task.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
		resumed := run(func() error { return task.Resume(t.Context()) })
		<-g.reached
		init.end(9)
		waitExit(t, task)
		close(g.open)
		if err := <-resumed; err != nil {
			t.Error(err)
		}
		if s := task.stateNow(); s != Stopped {
			t.Errorf("state %s", s)
		}
		wantEvents(t, rec, "t created 10", "t started 10", "t paused", "t exited 9")
	})
}

// A start that fails leaves a task that is stopped, with init's exit told.
func TestFailedStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		init := newFakeInit(10)
		init.on["Start"] = func(context.Context) error { return errTest }
		reg, task, rec := createTask(t, init)
		if _, err := task.Start(t.Context()); !errors.Is(err, errTest) {
			t.Errorf("Start: %v", err)
		}
		waitExit(t, task)
		if _, err := task.Start(t.Context()); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("second Start: %v", err)
		}
		if err := task.Kill(t.Context(), "", unix.SIGTERM, false); !errdefs.IsNotFound(err) {
			t.Errorf("Kill: %v", err)
		}
		if _, err := reg.Delete(t.Context(), "t"); err != nil {
			t.Errorf("Delete: %v", err)
		}
		wantEvents(t, rec, "t created 10", "t exited 137", "t deleted 137")
	})
}

// What fails leaves the task in the state in which it was.
func TestFailuresChangeNoState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fail := func(context.Context) error { return errTest }
		init := newFakeInit(10)
		_, task, rec := startTask(t, init)
		for _, m := range []string{"Pause", "Resume", "Update", "Exec", "PIDs", "Stats"} {
			init.on[m] = fail
		}
		capture := func(context.Context, bool) (string, error) { return "", errTest }
		if err := task.AddExec(ExecConfig{ID: "e"}); err != nil {
			t.Fatal(err)
		}
		_, execErr := task.StartExec(t.Context(), "e")
		_, _, pidsErr := task.PIDs(t.Context())
		_, statsErr := task.Stats()
		for n, err := range []error{task.Pause(t.Context()), task.Capture(t.Context(), capture), task.Update(t.Context(), nil), execErr, pidsErr, statsErr} {
			if !errors.Is(err, errTest) {
				t.Errorf("operation %d: %v", n, err)
			}
		}
		if s := task.stateNow(); s != Running {
			t.Errorf("state %s", s)
		}
		if e, err := task.Wait(t.Context(), "e"); err != nil || e.Status != exitUnknown {
			t.Errorf("an exec that could not be started: %v, %v", e, err)
		}
		delete(init.on, "Pause")
		if err := task.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
		wasPaused := false
		err := task.Capture(t.Context(), func(_ context.Context, p bool) (string, error) { wasPaused = p; return "", errTest })
		if !errors.Is(err, errTest) || !wasPaused {
			t.Errorf("capture of a paused task: %v, paused %t", err, wasPaused)
		}
		if err := task.Resume(t.Context()); !errors.Is(err, errTest) {
			t.Errorf("Resume: %v", err)
		}
		if s := task.stateNow(); s != Paused {
			t.Errorf("state %s", s)
		}
		init.end(0)
		waitExit(t, task)
		wantEvents(t, rec, "t created 10", "t started 10", "t/e added", "t paused", "t exited 0")
	})
}

// What an exec'd process reads as while its container is paused: frozen, if it runs.
func TestExecOfAPausedTask(t *testing.T) {
	for state, want := range map[State]State{Created: Created, Running: Paused, Stopped: Stopped} {
		task := taskIn(t, Paused)
		task.mu.Lock()
		task.execs["e"].state, task.execs["e"].process = state, newFakeProcess(20)
		task.mu.Unlock()
		if i, err := task.Info("e"); err != nil || i.State != want {
			t.Errorf("one that is %s reads as %s, %v", state, i.State, err)
		}
	}
}

// To signal all that is left of a task that has ended is done at once: nothing is.
func TestKillAllOfTheDead(t *testing.T) {
	task := taskIn(t, Stopped)
	if err := task.Kill(t.Context(), "", unix.SIGTERM, true); err != nil {
		t.Error(err)
	}
	if err := task.Kill(t.Context(), "", unix.SIGTERM, false); class(err) != "N" {
		t.Errorf("init alone: %v", err)
	}
}

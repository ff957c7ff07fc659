package lifecycle

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func TestCreateTakesTheID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := &recorder{}
		reg := NewRegistry(rec)
		init := newFakeInit(10)
		g := newGate(nil)
		created := run(func() error {
			_, err := reg.Create(t.Context(), "t", Stdio{}, nil, func(ctx context.Context, oom func()) (Init, error) {
				err := g.pass(ctx)
				oom()
				return init, err
			})
			return err
		})
		<-g.reached
		launch := func(context.Context, func()) (Init, error) { t.Error("launched twice"); return nil, nil }
		if _, err := reg.Create(t.Context(), "t", Stdio{}, nil, launch); !errdefs.IsAlreadyExists(err) {
			t.Errorf("Create of an ID in creation: %v", err)
		}
		if _, err := reg.Get("t"); !errdefs.IsNotFound(err) {
			t.Errorf("Get of a task in creation: %v", err)
		}
		if _, err := reg.Delete(t.Context(), "t"); !errdefs.IsNotFound(err) {
			t.Errorf("Delete of a task in creation: %v", err)
		}
		if reg.Len() != 1 {
			t.Errorf("a shim with a task in creation counts %d", reg.Len())
		}
		close(g.open)
		if err := <-created; err != nil {
			t.Fatal(err)
		}
		task, err := reg.Get("t")
		if err != nil || task.ID() != "t" || task.Init() != Init(init) {
			t.Errorf("Get: %v, %v", task, err)
		}
		init.end(0)
		waitExit(t, task)
		wantEvents(t, rec, "t oom", "t created 10", "t exited 0")
	})
}

func TestFailedCreateFreesTheID(t *testing.T) {
	rec := &recorder{}
	reg := NewRegistry(rec)
	for range 2 {
		_, err := reg.Create(t.Context(), "t", Stdio{}, nil, func(context.Context, func()) (Init, error) { return nil, errTest })
		if !errors.Is(err, errTest) || reg.Len() != 0 {
			t.Errorf("%v, %d tasks", err, reg.Len())
		}
	}
	wantEvents(t, rec)
}

// An init that was never started is ended before what it stands on is removed.
func TestDeleteCreated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		init := newFakeInit(10)
		reg, task, rec := createTask(t, init)
		startExec(t, task, "e")
		init.on["Close"] = func(context.Context) error {
			wantEvents(t, rec, "t created 10", "t/e added", "t/e started 11", "t/e exited 137", "t exited 137")
			return nil
		}
		e, err := reg.Delete(t.Context(), "t")
		if err != nil || e.Status != 137 {
			t.Errorf("%v, %v", e, err)
		}
		if len(init.signals) != 1 || init.signals[0] != unix.SIGKILL {
			t.Errorf("signals %v", init.signals)
		}
		wantEvents(t, rec, "t created 10", "t/e added", "t/e started 11", "t/e exited 137", "t exited 137", "t deleted 137")
	})
}

func TestDeleteCreatedThatHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		init := newFakeInit(10)
		g := newGate(nil)
		init.on["KillRest"] = g.pass
		reg, _, rec := createTask(t, init)
		init.end(1)
		<-g.reached // The exit has happened and is not yet told.
		deleted := run(func() error { _, err := reg.Delete(t.Context(), "t"); return err })
		synctest.Wait()
		pending(t, "delete", deleted)
		close(g.open)
		if err := <-deleted; err != nil {
			t.Error(err)
		}
		wantEvents(t, rec, "t created 10", "t exited 1", "t deleted 1")
	})
}

// An init that does not end blocks a delete for a limited time only.
func TestDeleteCreatedThatDoesNotEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		init := newFakeInit(10)
		init.on["Signal"] = func(context.Context) error { return errTest }
		reg, task, _ := createTask(t, init)
		if _, err := reg.Delete(t.Context(), "t"); !errors.Is(err, errTest) {
			t.Errorf("Delete: %v", err)
		}
		g := newGate(errdefs.ErrNotFound)
		init.on["Signal"] = g.pass
		close(g.open)
		begin := time.Now()
		if _, err := reg.Delete(t.Context(), "t"); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != cleanupTimeout {
			t.Errorf("Delete after %s: %v", time.Since(begin), err)
		}
		delete(init.on, "Signal")
		if _, err := reg.Delete(t.Context(), "t"); err != nil {
			t.Errorf("Delete: %v", err)
		}
		if s := task.stateNow(); s != Deleted {
			t.Errorf("state %s", s)
		}
	})
}

func TestDoubleDelete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		init := newFakeInit(10)
		reg, task, rec := startTask(t, init)
		init.end(0)
		waitExit(t, task)
		g := newGate(nil)
		init.on["Destroy"] = g.pass
		first := run(func() error { _, err := reg.Delete(t.Context(), "t"); return err })
		<-g.reached
		second := run(func() error { _, err := reg.Delete(t.Context(), "t"); return err })
		synctest.Wait()
		pending(t, "the second delete", second)
		close(g.open)
		if err := <-first; err != nil {
			t.Error(err)
		}
		if err := <-second; !errdefs.IsNotFound(err) {
			t.Errorf("the second delete: %v", err)
		}
		if _, err := reg.Delete(t.Context(), "t"); !errdefs.IsNotFound(err) {
			t.Errorf("a third delete: %v", err)
		}
		if _, _, err := task.PIDs(t.Context()); !errdefs.IsNotFound(err) {
			t.Errorf("PIDs of a deleted task: %v", err)
		}
		wantEvents(t, rec, "t created 10", "t started 10", "t exited 0", "t deleted 0")
	})
}

// A delete that has begun is finished though its caller has gone, and one that
// failed can be asked for again.
func TestDeleteOutlivesItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		init := newFakeInit(10)
		reg, task, rec := startTask(t, init)
		init.end(0)
		waitExit(t, task)
		ctx, cancel := context.WithCancel(t.Context())
		init.on["Close"] = func(ctx context.Context) error {
			cancel()
			if d, ok := ctx.Deadline(); !ok || time.Until(d) > drainTimeout {
				t.Error("the drain has no deadline")
			}
			return ctx.Err()
		}
		init.on["Destroy"] = func(context.Context) error { return errTest }
		if _, err := reg.Delete(ctx, "t"); !errors.Is(err, errTest) || reg.Len() != 1 {
			t.Errorf("Delete: %v, %d tasks", err, reg.Len())
		}
		init.on["Destroy"] = func(ctx context.Context) error { return ctx.Err() }
		if _, err := reg.Delete(t.Context(), "t"); err != nil || reg.Len() != 0 {
			t.Errorf("Delete: %v, %d tasks", err, reg.Len())
		}
		wantEvents(t, rec, "t created 10", "t started 10", "t exited 0", "t deleted 0")
	})
}

// What nobody deleted goes with the task.
func TestDeleteClosesExecs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		init := newFakeInit(10)
		reg, task, _ := startTask(t, init)
		startExec(t, task, "ran")
		if err := task.AddExec(ExecConfig{ID: "never"}); err != nil {
			t.Fatal(err)
		}
		waiting := run(func() error {
			e, err := task.Wait(t.Context(), "never")
			if e.Status != exitUnknown {
				t.Errorf("exit %v", e)
			}
			return err
		})
		synctest.Wait()
		init.end(0)
		waitExit(t, task)
		if _, err := reg.Delete(t.Context(), "t"); err != nil {
			t.Fatal(err)
		}
		if n := init.exec(0).called("Close"); n != 1 {
			t.Errorf("the exec was closed %d times", n)
		}
		if err := <-waiting; err != nil {
			t.Errorf("Wait for an exec that never ran: %v", err)
		}
		if _, err := task.DeleteExec(t.Context(), "ran"); !errdefs.IsNotFound(err) {
			t.Errorf("DeleteExec: %v", err)
		}
	})
}

// One that never ran ended as nothing, as with the stock shim.
func TestDeleteExecNeverStarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		init := newFakeInit(10)
		_, task, _ := startTask(t, init)
		if err := task.AddExec(ExecConfig{ID: "never"}); err != nil {
			t.Fatal(err)
		}
		if e, err := task.DeleteExec(t.Context(), "never"); err != nil || e.Status != 0 || !e.At.IsZero() {
			t.Errorf("DeleteExec: %v, %v", e, err)
		}
		init.end(0)
	})
}

// One whose start failed reads as never started, as with the stock shim.
func TestFailedExecReadsAsCreated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		init := newFakeInit(10)
		init.newExec = func(context.Context, ExecConfig) (Process, error) { return nil, errdefs.ErrUnavailable }
		_, task, _ := startTask(t, init)
		if err := task.AddExec(ExecConfig{ID: "e"}); err != nil {
			t.Fatal(err)
		}
		if _, err := task.StartExec(t.Context(), "e"); !errdefs.IsUnavailable(err) {
			t.Errorf("StartExec: %v", err)
		}
		if i, err := task.Info("e"); err != nil || i.State != Created || i.PID != 0 {
			t.Errorf("Info: %+v, %v", i, err)
		}
		init.end(0)
	})
}

// Whoever waits gets the exit also if another deletes the process at once.
func TestWaitAgainstDeleteExec(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		init := newFakeInit(10)
		_, task, _ := startTask(t, init)
		const waiters = 20
		startExec(t, task, "e")
		if err := task.AddExec(ExecConfig{ID: "never"}); err != nil {
			t.Fatal(err)
		}
		results := make(chan int, 2*waiters)
		for range waiters {
			for _, id := range []string{"e", "never"} {
				go func() {
					e, err := task.Wait(t.Context(), id)
					if err != nil {
						t.Errorf("Wait for %s: %v", id, err)
					}
					results <- e.Status
				}()
			}
		}
		synctest.Wait()
		if _, err := task.DeleteExec(t.Context(), "never"); err != nil {
			t.Error(err)
		}
		for range waiters {
			if status := <-results; status != exitUnknown {
				t.Errorf("status %d of a process that never ran", status)
			}
		}
		init.exec(0).end(6)
		if _, err := task.Wait(t.Context(), "e"); err != nil {
			t.Error(err)
		}
		if _, err := task.DeleteExec(t.Context(), "e"); err != nil {
			t.Error(err)
		}
		for range waiters {
			if status := <-results; status != 6 {
				t.Errorf("status %d", status)
			}
		}
		init.end(0)
		waitExit(t, task)
	})
}

func TestWaitGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		init := newFakeInit(10)
		_, task, _ := startTask(t, init)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := task.Wait(ctx, ""); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Wait: %v", err)
		}
		init.end(0)
		waitExit(t, task)
	})
}

// What is asked of a process by its terminal or its input.
func TestStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		init := newFakeInit(10)
		_, task, _ := startTask(t, init)
		if err := task.AddExec(ExecConfig{ID: "e", Stdio: Stdio{Stdin: "/in"}}); err != nil {
			t.Fatal(err)
		}
		// Before the start there is nothing to resize or close.
		if err := errors.Join(task.Resize("e", 1, 2), task.CloseStdin("e")); err != nil {
			t.Error(err)
		}
		if i, err := task.Info("e"); err != nil || i != (Info{ID: "t", ExecID: "e", State: Created, Stdio: Stdio{Stdin: "/in"}}) {
			t.Errorf("%+v, %v", i, err)
		}
		if _, err := task.StartExec(t.Context(), "e"); err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{"", "e"} {
			if err := errors.Join(task.Resize(id, 1, 2), task.CloseStdin(id)); err != nil {
				t.Error(err)
			}
		}
		for _, p := range []*fakeProcess{init.fakeProcess, init.exec(0)} {
			if p.called("Resize") != 1 || p.called("CloseStdin") != 1 {
				t.Errorf("calls %v", p.calls)
			}
		}
		if pids, ids, err := task.PIDs(t.Context()); err != nil || len(pids) != 1 || len(ids) != 1 || ids[11] != "e" {
			t.Errorf("PIDs: %v %v, %v", pids, ids, err)
		}
		if err := task.Kill(t.Context(), "e", unix.SIGKILL, false); err != nil {
			t.Error(err)
		}
		if _, err := task.Wait(t.Context(), "e"); err != nil {
			t.Error(err)
		}
		if i, err := task.Info("e"); err != nil || i.State != Stopped || i.PID != 11 || i.Exit.Status != 137 {
			t.Errorf("%+v, %v", i, err)
		}
		if s, err := task.Stats(); err != nil || s != "stats" {
			t.Errorf("Stats: %v, %v", s, err)
		}
		init.end(0)
		waitExit(t, task)
		if i, err := task.Info(""); err != nil || i.State != Stopped || i.PID != 10 || i.Stdio.Stdout != "/out" {
			t.Errorf("%+v, %v", i, err)
		}
	})
}

// A caller that has gone away while its task was created never asks for it
// again: nothing is left, nothing is told, and a shutdown that it asked for comes.
func TestCreateForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := &recorder{}
		reg := NewRegistry(rec)
		init := newFakeInit(10)
		init.on["Signal"] = func(context.Context) error { init.end(137); return nil }
		ctx, cancel := context.WithCancel(t.Context())
		ended := 0
		_, err := reg.Create(ctx, "t", Stdio{}, nil, func(context.Context, func()) (Init, error) {
			cancel()
			reg.Shutdown(func() { ended++ })
			return init, nil
		})
		if !errors.Is(err, context.Canceled) || reg.Len() != 0 || ended != 1 {
			t.Errorf("Create: %v, %d tasks, ended %d times", err, reg.Len(), ended)
		}
		for _, call := range []string{"Signal", "Close", "Destroy"} {
			if !slices.Contains(init.calls, call) {
				t.Errorf("%s was not called: %v", call, init.calls)
			}
		}
		wantEvents(t, rec)
	})
}

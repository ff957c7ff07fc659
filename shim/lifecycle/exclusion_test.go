package lifecycle

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// A signal reaches a task that is being started, restored, captured or paused:
// nobody could end one that hangs otherwise.
func TestKillDoesNotWait(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T, init *fakeInit, task *Task, g *gate) func() error{
		"starting": func(t *testing.T, init *fakeInit, task *Task, g *gate) func() error {
			init.on["Start"] = g.pass
			return func() error { _, err := task.Start(t.Context()); return err }
		},
		"restoring": func(t *testing.T, init *fakeInit, task *Task, g *gate) func() error {
			init.restores = true
			init.on["Start"] = g.pass
			return func() error { _, err := task.Start(t.Context()); return err }
		},
		"capturing": func(t *testing.T, _ *fakeInit, task *Task, g *gate) func() error {
			if _, err := task.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			return func() error {
				return task.Capture(t.Context(), func(ctx context.Context, _ bool) (string, error) { return "c", g.pass(ctx) })
			}
		},
		"pausing": func(t *testing.T, init *fakeInit, task *Task, g *gate) func() error {
			if _, err := task.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			init.on["Pause"] = g.pass
			return func() error { return task.Pause(t.Context()) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				init := newFakeInit(10)
				_, task, _ := createTask(t, init)
				g := newGate(nil)
				op := prepare(t, init, task, g)
				done := run(op)
				<-g.reached
				if s := task.stateNow(); s.String() != name {
					t.Errorf("state %s", s)
				}
				if err := task.Kill(t.Context(), "", unix.SIGTERM, false); err != nil {
					t.Errorf("SIGTERM: %v", err)
				}
				if err := task.Kill(t.Context(), "", unix.SIGKILL, true); err != nil {
					t.Errorf("SIGKILL to all: %v", err)
				}
				if _, err := task.Info(""); err != nil {
					t.Errorf("Info: %v", err)
				}
				if pids, _, err := task.PIDs(t.Context()); err != nil || len(pids) != 1 {
					t.Errorf("PIDs: %v, %v", pids, err)
				}
				if init.called("SignalAll") != 1 || len(init.signals) != 2 {
					t.Errorf("signals %v, calls %v", init.signals, init.calls)
				}
				close(g.open)
				if err := <-done; err != nil {
					t.Error(err)
				}
				if e := waitExit(t, task); e.Status != 137 {
					t.Errorf("exit %v", e)
				}
			})
		})
	}
}

// An operation waits for the one before it, and gives up with its caller.
func TestExclusiveOperationsWait(t *testing.T) {
	for name, op := range map[string]func(ctx context.Context, task *Task) error{
		"pause":   func(ctx context.Context, task *Task) error { return task.Pause(ctx) },
		"capture": func(ctx context.Context, task *Task) error { return task.Capture(ctx, nothing) },
		"update":  func(ctx context.Context, task *Task) error { return task.Update(ctx, nil) },
		"exec":    func(ctx context.Context, task *Task) error { _, err := task.StartExec(ctx, "e"); return err },
		"start":   func(ctx context.Context, task *Task) error { _, err := task.Start(ctx); return err },
		"delete":  func(ctx context.Context, task *Task) error { _, err := task.delete(ctx); return err },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				init := newFakeInit(10)
				_, task, _ := startTask(t, init)
				if err := task.AddExec(ExecConfig{ID: "e"}); err != nil {
					t.Fatal(err)
				}
				g := newGate(nil)
				first := run(func() error {
					return task.Capture(t.Context(), func(ctx context.Context, _ bool) (string, error) { return "c", g.pass(ctx) })
				})
				<-g.reached
				begin := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if err := op(ctx, task); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != time.Minute {
					t.Errorf("after %s: %v", time.Since(begin), err)
				}
				second := run(func() error { return op(t.Context(), task) })
				synctest.Wait()
				pending(t, name, second)
				close(g.open)
				if err := <-first; err != nil {
					t.Error(err)
				}
				// A running task can be neither started nor deleted: the operation
				// that waited is judged by the state it finds.
				if err := <-second; errdefs.IsFailedPrecondition(err) != (name == "start" || name == "delete") {
					t.Errorf("when its turn came: %v", err)
				}
				for _, p := range append(init.execs, init.fakeProcess) {
					p.end(0)
				}
				waitExit(t, task)
			})
		})
	}
}

func nothing(context.Context, bool) (string, error) { return "", nil }

// The dead are told so at once, whatever operation is under way.
func TestOperationOnAStoppedTaskDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		init := newFakeInit(10)
		reg, task, _ := startTask(t, init)
		init.end(0)
		waitExit(t, task)
		g := newGate(nil)
		init.on["Destroy"] = g.pass
		deleted := run(func() error { _, err := reg.Delete(t.Context(), "t"); return err })
		<-g.reached
		if err := task.Pause(t.Context()); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("Pause: %v", err)
		}
		close(g.open)
		if err := <-deleted; err != nil {
			t.Error(err)
		}
	})
}

// An exit that is told while an operation waits for its turn changes the answer.
func TestExitWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		init := newFakeInit(10)
		_, task, rec := startTask(t, init)
		g := newGate(nil)
		first := run(func() error {
			return task.Capture(t.Context(), func(ctx context.Context, _ bool) (string, error) { return "c", g.pass(ctx) })
		})
		<-g.reached
		pause := run(func() error { return task.Pause(t.Context()) })
		synctest.Wait()
		init.end(0)
		synctest.Wait()
		close(g.open)
		if err := <-first; err != nil {
			t.Error(err)
		}
		if err := <-pause; !errdefs.IsFailedPrecondition(err) {
			t.Errorf("Pause: %v", err)
		}
		wantEvents(t, rec, "t created 10", "t started 10", "t checkpointed c", "t exited 0")
	})
}

// Execs do not wait for each other.
func TestExecsRunInParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		init := newFakeInit(10)
		both := make(chan struct{})
		arrived := make(chan struct{}, 2)
		init.on["Exec"] = func(context.Context) error {
			arrived <- struct{}{}
			<-both
			return nil
		}
		_, task, _ := startTask(t, init)
		var done []<-chan error
		for _, id := range []string{"a", "b"} {
			if err := task.AddExec(ExecConfig{ID: id}); err != nil {
				t.Fatal(err)
			}
			done = append(done, run(func() error { _, err := task.StartExec(t.Context(), id); return err }))
		}
		<-arrived
		<-arrived
		if _, err := task.DeleteExec(t.Context(), "a"); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("DeleteExec during its start: %v", err)
		}
		captured := run(func() error { return task.Capture(t.Context(), nothing) })
		synctest.Wait()
		pending(t, "a capture during the start of execs", captured)
		close(both)
		for _, c := range append(done, captured) {
			if err := <-c; err != nil {
				t.Error(err)
			}
		}
		init.end(0)
		waitExit(t, task)
	})
}

// An exec can be announced during a capture; its start comes after it.
func TestExecDuringCapture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		init := newFakeInit(10)
		_, task, rec := startTask(t, init)
		g := newGate(nil)
		captured := run(func() error {
			return task.Capture(t.Context(), func(ctx context.Context, _ bool) (string, error) { return "c", g.pass(ctx) })
		})
		<-g.reached
		if err := task.AddExec(ExecConfig{ID: "e"}); err != nil {
			t.Fatal(err)
		}
		if err := task.AddExec(ExecConfig{ID: "e"}); !errdefs.IsAlreadyExists(err) {
			t.Errorf("a second exec of the same name: %v", err)
		}
		exec := run(func() error { _, err := task.StartExec(t.Context(), "e"); return err })
		synctest.Wait()
		pending(t, "an exec", exec)
		close(g.open)
		for _, c := range []<-chan error{captured, exec} {
			if err := <-c; err != nil {
				t.Error(err)
			}
		}
		init.end(0)
		waitExit(t, task)
		wantEvents(t, rec, "t created 10", "t started 10", "t/e added", "t checkpointed c", "t/e started 11", "t/e exited 137", "t exited 0")
	})
}

// Updates do wait for each other: the second builds upon what the first set.
func TestUpdatesExcludeEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		init := newFakeInit(10)
		g := newGate(nil)
		init.on["Update"] = func(ctx context.Context) error {
			if init.called("Update") == 1 {
				return g.pass(ctx)
			}
			return nil
		}
		_, task, _ := startTask(t, init)
		first := run(func() error { return task.Update(t.Context(), nil) })
		<-g.reached
		second := run(func() error { return task.Update(t.Context(), nil) })
		synctest.Wait()
		pending(t, "the second update", second)
		close(g.open)
		if err := errors.Join(<-first, <-second); err != nil {
			t.Error(err)
		}
		init.end(0)
		waitExit(t, task)
	})
}

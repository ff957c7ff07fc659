package lifecycle

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// columns is the order of operations in the tables of this file.
var columns = []Op{OpStart, OpExec, OpKill, OpPause, OpResume, OpCapture, OpUpdate, OpDelete}

// table says, for each state, what each operation answers: "." is success,
// N is NotFound, F is FailedPrecondition.
var table = map[State]string{
	//          start exec kill pause resume capture update delete
	Creating:  "N N N N N N N N",
	Created:   ". . . F F F . .",
	Starting:  "F F . F F F F F",
	Restoring: "F F . F F F F F",
	Running:   "F . . . F . . F",
	Capturing: "F F . F F F F F",
	Pausing:   "F F . F F F F F",
	Paused:    "F F . F . . . F",
	Stopped:   "F F N F F F F .",
	Deleted:   "N N N N N N N N",
}

func TestTableIsWhole(t *testing.T) {
	if len(table) != numStates || len(columns) != numOps || len(stateNames) != numStates || len(opNames) != numOps {
		t.Fatalf("the table has %d states and %d operations, the code %d and %d", len(table), len(columns), numStates, numOps)
	}
	for s := range State(numStates) {
		if n := len(strings.Fields(table[s])); n != numOps {
			t.Errorf("%s has %d columns", s, n)
		}
		if s.String() == "" || strings.Contains(s.String(), "(") {
			t.Errorf("state %d has no name", s)
		}
	}
	for o := range Op(numOps) {
		if !slices.Contains(columns, o) || o.String() == "" || strings.Contains(o.String(), "(") {
			t.Errorf("operation %d has no column or no name", o)
		}
	}
	if got := State(numStates).String() + " " + Op(numOps).String(); got != "state(10) op(8)" {
		t.Errorf("names beyond the table: %q", got)
	}
}

// class returns err's letter in the table.
func class(err error) string {
	switch {
	case err == nil:
		return "."
	case errors.Is(err, errdefs.ErrNotFound) && !errors.Is(err, errdefs.ErrFailedPrecondition):
		return "N"
	case errors.Is(err, errdefs.ErrFailedPrecondition) && !errors.Is(err, errdefs.ErrNotFound):
		return "F"
	}
	return "?" + err.Error()
}

func TestEveryStateAndOperation(t *testing.T) {
	for s, row := range table {
		for n, want := range strings.Fields(row) {
			op := columns[n]
			t.Run(s.String()+"/"+op.String(), func(t *testing.T) {
				if got := class(s.check("t", op)); got != want {
					t.Errorf("check answers %s, want %s", got, want)
				}
				if s.Allows(op) != (want == ".") {
					t.Errorf("Allows = %t", s.Allows(op))
				}
				task := taskIn(t, s)
				err := ask(t.Context(), task, op)
				if got := class(err); got != want {
					t.Errorf("the method answers %s, want %s", got, want)
				}
				if err != nil && !strings.Contains(err.Error(), "task t") {
					t.Errorf("the error does not name the task: %v", err)
				}
			})
		}
	}
}

// taskIn returns a task in a state that no operation holds it in.
func taskIn(t *testing.T, s State) *Task {
	t.Helper()
	task := newTask("t", Stdio{}, &recorder{})
	if s == Creating {
		return task
	}
	init := newFakeInit(10)
	task.created(init, nil)
	t.Cleanup(func() { init.end(0) })
	task.mu.Lock()
	task.execs["e"] = &execProcess{task: task, cfg: ExecConfig{ID: "e"}, state: Created, exited: make(chan struct{})}
	if s < Stopped {
		task.state = s
	}
	task.mu.Unlock()
	if s >= Stopped {
		init.end(0)
		waitExit(t, task)
	}
	if s == Deleted {
		if _, err := task.delete(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return task
}

func ask(ctx context.Context, task *Task, op Op) (err error) {
	switch op {
	case OpStart:
		_, err = task.Start(ctx)
	case OpExec:
		_, err = task.StartExec(ctx, "e")
	case OpKill:
		err = task.Kill(ctx, "", unix.SIGTERM, false)
	case OpPause:
		err = task.Pause(ctx)
	case OpResume:
		err = task.Resume(ctx)
	case OpCapture:
		err = task.Capture(ctx, func(context.Context, bool) (string, error) { return "c", nil })
	case OpUpdate:
		err = task.Update(ctx, nil)
	case OpDelete:
		_, err = task.delete(ctx)
	}
	return err
}

// An exec can be announced wherever it could be started, and during a capture:
// its start then waits.
func TestAddExecByState(t *testing.T) {
	for s, row := range table {
		want := strings.Fields(row)[1]
		if s == Capturing {
			want = "."
		}
		task := taskIn(t, s)
		if got := class(task.AddExec(ExecConfig{ID: "new"})); got != want {
			t.Errorf("in state %s AddExec answers %s, want %s", s, got, want)
		}
	}
}

// What an exec'd process answers, by its own state.
func TestEveryExecState(t *testing.T) {
	for s, want := range map[State]string{
		//        start kill delete
		Created:  ". F .",
		Starting: "F F F",
		Running:  "F . F",
		Stopped:  "F N .",
	} {
		for n, want := range strings.Fields(want) {
			task := taskIn(t, Running)
			p := newFakeProcess(20)
			task.mu.Lock()
			task.execs["e"].state = s
			if s == Running || s == Stopped {
				task.execs["e"].process = p
			}
			task.mu.Unlock()
			var err error
			switch n {
			case 0:
				_, err = task.StartExec(t.Context(), "e")
			case 1:
				err = task.Kill(t.Context(), "e", unix.SIGTERM, false)
			case 2:
				_, err = task.DeleteExec(t.Context(), "e")
			}
			if got := class(err); got != want {
				t.Errorf("operation %d on an exec that is %s answers %s, want %s", n, s, got, want)
			}
		}
	}
}

func TestUnknownExec(t *testing.T) {
	task := taskIn(t, Running)
	for name, f := range map[string]func() error{
		"StartExec":  func() error { _, err := task.StartExec(t.Context(), "x"); return err },
		"DeleteExec": func() error { _, err := task.DeleteExec(t.Context(), "x"); return err },
		"Kill":       func() error { return task.Kill(t.Context(), "x", unix.SIGTERM, false) },
		"Wait":       func() error { _, err := task.Wait(t.Context(), "x"); return err },
		"Info":       func() error { _, err := task.Info("x"); return err },
		"Resize":     func() error { return task.Resize("x", 1, 1) },
		"CloseStdin": func() error { return task.CloseStdin("x") },
	} {
		if err := f(); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "process x in task t") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

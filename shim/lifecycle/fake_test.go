package lifecycle

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

var (
	_ Process = (*fakeProcess)(nil)
	_ Init    = (*fakeInit)(nil)
	_ Emitter = (*recorder)(nil)
)

// recorder keeps events as words, so that a test can compare their order.
type recorder struct {
	mu     sync.Mutex
	events []Event
}

func (r *recorder) Emit(e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

func (r *recorder) words() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	words := make([]string, 0, len(r.events))
	for _, e := range r.events {
		words = append(words, word(e))
	}
	return words
}

func word(e Event) string {
	switch e := e.(type) {
	case CreatedEvent:
		return fmt.Sprintf("%s created %d", e.ID, e.PID)
	case StartedEvent:
		return fmt.Sprintf("%s started %d", e.ID, e.PID)
	case OOMEvent:
		return e.ID + " oom"
	case ExitedEvent:
		if e.ExecID != "" {
			return fmt.Sprintf("%s/%s exited %d", e.ID, e.ExecID, e.Exit.Status)
		}
		return fmt.Sprintf("%s exited %d", e.ID, e.Exit.Status)
	case DeletedEvent:
		return fmt.Sprintf("%s deleted %d", e.ID, e.Exit.Status)
	case ExecAddedEvent:
		return fmt.Sprintf("%s/%s added", e.ID, e.ExecID)
	case ExecStartedEvent:
		return fmt.Sprintf("%s/%s started %d", e.ID, e.ExecID, e.PID)
	case PausedEvent:
		return e.ID + " paused"
	case ResumedEvent:
		return e.ID + " resumed"
	case CheckpointedEvent:
		return fmt.Sprintf("%s checkpointed %s", e.ID, e.Checkpoint)
	}
	return fmt.Sprintf("unknown %T", e)
}

func wantEvents(t *testing.T, r *recorder, want ...string) {
	t.Helper()
	if got := r.words(); !slices.Equal(got, want) {
		t.Errorf("events:\n got %q\nwant %q", got, want)
	}
}

// fakeProcess is a process that ends when the test, or a SIGKILL, says so.
type fakeProcess struct {
	pid   int
	exits chan Exit

	mu      sync.Mutex
	ended   bool
	signals []unix.Signal
	calls   []string
	// on is called by the method of its name, and may block or fail it.
	on map[string]func(ctx context.Context) error
}

func newFakeProcess(pid int) *fakeProcess {
	return &fakeProcess{pid: pid, exits: make(chan Exit, 1), on: make(map[string]func(context.Context) error)}
}

// end ends the process, once.
func (p *fakeProcess) end(status int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended {
		p.ended = true
		p.exits <- Exit{PID: p.pid, Status: status, At: time.Now()}
	}
}

func (p *fakeProcess) call(ctx context.Context, name string) error {
	p.mu.Lock()
	p.calls = append(p.calls, name)
	on := p.on[name]
	p.mu.Unlock()
	if on == nil {
		return nil
	}
	return on(ctx)
}

// called counts the calls of a method.
func (p *fakeProcess) called(name string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, c := range p.calls {
		if c == name {
			n++
		}
	}
	return n
}

func (p *fakeProcess) PID() int   { return p.pid }
func (p *fakeProcess) Wait() Exit { return <-p.exits }

func (p *fakeProcess) Signal(ctx context.Context, sig unix.Signal) error {
	p.mu.Lock()
	p.signals = append(p.signals, sig)
	ended := p.ended
	p.mu.Unlock()
	if ended {
		return errdefs.ErrNotFound
	}
	if err := p.call(ctx, "Signal"); err != nil {
		return err
	}
	if sig == unix.SIGKILL {
		p.end(128 + int(sig))
	}
	return nil
}

func (p *fakeProcess) Resize(uint32, uint32) error {
	return p.call(context.Background(), "Resize")
}
func (p *fakeProcess) CloseStdin() error               { return p.call(context.Background(), "CloseStdin") }
func (p *fakeProcess) Close(ctx context.Context) error { return p.call(ctx, "Close") }

// fakeInit is a container. Its exec'd processes outlive it until KillRest, as
// they do without a pid namespace of its own.
type fakeInit struct {
	*fakeProcess
	restores bool

	execMu  sync.Mutex
	execs   []*fakeProcess
	nextPID int
	// newExec replaces the default of Exec.
	newExec func(ctx context.Context, cfg ExecConfig) (Process, error)
	// survives makes KillRest do nothing.
	survives bool
}

func newFakeInit(pid int) *fakeInit {
	return &fakeInit{fakeProcess: newFakeProcess(pid), nextPID: pid + 1}
}

func (i *fakeInit) Restores() bool { return i.restores }

func (i *fakeInit) Start(ctx context.Context) error {
	if err := i.call(ctx, "Start"); err != nil {
		// The contract of Init.Start: nothing of the program is left.
		i.end(137)
		return err
	}
	return nil
}

func (i *fakeInit) Exec(ctx context.Context, cfg ExecConfig) (Process, error) {
	if err := i.call(ctx, "Exec"); err != nil {
		return nil, err
	}
	if i.newExec != nil {
		return i.newExec(ctx, cfg)
	}
	return i.addExec(), nil
}

func (i *fakeInit) addExec() *fakeProcess {
	i.execMu.Lock()
	defer i.execMu.Unlock()
	p := newFakeProcess(i.nextPID)
	i.nextPID++
	i.execs = append(i.execs, p)
	return p
}

func (i *fakeInit) exec(n int) *fakeProcess {
	i.execMu.Lock()
	defer i.execMu.Unlock()
	return i.execs[n]
}

func (i *fakeInit) SignalAll(ctx context.Context, sig unix.Signal) error {
	i.mu.Lock()
	i.calls = append(i.calls, "SignalAll")
	i.mu.Unlock()
	return i.Signal(ctx, sig)
}

func (i *fakeInit) KillRest(ctx context.Context) error {
	if err := i.call(ctx, "KillRest"); err != nil {
		return err
	}
	i.execMu.Lock()
	defer i.execMu.Unlock()
	if !i.survives {
		for _, p := range i.execs {
			p.end(137)
		}
	}
	return nil
}

func (i *fakeInit) Pause(ctx context.Context) error  { return i.call(ctx, "Pause") }
func (i *fakeInit) Resume(ctx context.Context) error { return i.call(ctx, "Resume") }

func (i *fakeInit) Update(ctx context.Context, _ *specs.LinuxResources) error {
	return i.call(ctx, "Update")
}

func (i *fakeInit) PIDs(ctx context.Context) ([]int, error) {
	return []int{i.pid}, i.call(ctx, "PIDs")
}

func (i *fakeInit) Stats() (any, error) {
	return "stats", i.call(context.Background(), "Stats")
}
func (i *fakeInit) Destroy(ctx context.Context) error { return i.call(ctx, "Destroy") }

// gate is a point at which a call is held until the test opens it.
type gate struct {
	reached, open chan struct{}
	err           error
}

func newGate(err error) *gate {
	return &gate{reached: make(chan struct{}), open: make(chan struct{}), err: err}
}

func (g *gate) pass(context.Context) error {
	close(g.reached)
	<-g.open
	return g.err
}

// createTask makes a registry with one task, "t", in state Created.
func createTask(t *testing.T, init *fakeInit) (*Registry, *Task, *recorder) {
	t.Helper()
	rec := &recorder{}
	reg := NewRegistry(rec)
	task, err := reg.Create(t.Context(), "t", Stdio{Stdout: "/out"}, nil, func(context.Context, func()) (Init, error) {
		return init, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return reg, task, rec
}

// startTask is createTask followed by Start.
func startTask(t *testing.T, init *fakeInit) (*Registry, *Task, *recorder) {
	t.Helper()
	reg, task, rec := createTask(t, init)
	if _, err := task.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return reg, task, rec
}

// startExec announces and starts an exec.
func startExec(t *testing.T, task *Task, id string) {
	t.Helper()
	if err := task.AddExec(ExecConfig{ID: id}); err != nil {
		t.Fatal(err)
	}
	if _, err := task.StartExec(t.Context(), id); err != nil {
		t.Fatal(err)
	}
}

// waitExit waits for init's exit to have been reported.
func waitExit(t *testing.T, task *Task) Exit {
	t.Helper()
	e, err := task.Wait(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	return e
}

package auto

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/ready"
	"github.com/containerd-snap/snap/checkpoint/store"
	"github.com/containerd-snap/snap/oci/spec"
	"github.com/containerd-snap/snap/shim/probe"
)

// node is what the tasks of a test share: which fingerprints have a template.
type node struct {
	mu        sync.Mutex
	templates map[string]bool
}

// task is a task whose captures do what the test says.
type task struct {
	node     *node
	settings spec.Settings
	restored bool

	mu       sync.Mutex
	paused   bool
	fail     error
	captures []string
	notes    []checkpoint.Capture
}

func (*task) PID() int             { return 1 }
func (*task) PIDs() ([]int, error) { return []int{1}, nil }
func (*task) Dial(context.Context, string) (net.Conn, error) {
	return nil, errors.New("connection refused")
}
func (*task) Run(context.Context, []string) error { return nil }
func (*task) Output() *probe.Output               { return nil }
func (*task) ID() string                          { return "c1" }
func (t *task) Settings() spec.Settings           { return t.settings }
func (t *task) Booted() bool                      { return !t.restored }

func (t *task) Paused() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.paused
}

func (t *task) Fingerprint(context.Context) (checkpoint.Fingerprint, error) {
	return checkpoint.Fingerprint{"image": "sha256:1"}, nil
}

func (t *task) HasTemplate(_ context.Context, f checkpoint.Fingerprint) (bool, error) {
	t.node.mu.Lock()
	defer t.node.mu.Unlock()
	return t.node.templates[f.Key()], nil
}

// Capture takes a second.
func (t *task) Capture(ctx context.Context, kind checkpoint.Kind) (checkpoint.Entry, error) {
	select {
	case <-ctx.Done():
		return checkpoint.Entry{}, ctx.Err()
	case <-time.After(time.Second):
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.captures = append(t.captures, string(kind))
	if t.fail != nil {
		return checkpoint.Entry{}, t.fail
	}
	if kind == checkpoint.Template {
		f, _ := t.Fingerprint(ctx)
		t.node.mu.Lock()
		defer t.node.mu.Unlock()
		t.node.templates[f.Key()] = true
	}
	return checkpoint.Entry{Digest: fmt.Sprintf("sha256:%d", len(t.captures))}, nil
}

func (t *task) NoteCapture(_ context.Context, c checkpoint.Capture) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.notes = append(t.notes, c)
}

func (t *task) set(paused bool, fail error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.paused, t.fail = paused, fail
}

// taken is how many captures there were.
func (t *task) taken() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.captures)
}

func (t *task) last() checkpoint.Capture {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.notes[len(t.notes)-1]
}

func openStore(t *testing.T) *store.Store {
	t.Helper()
	st, err := store.Open(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// onReady are the settings of a container that is ready a minute after its start.
var onReady = spec.Settings{
	Capture:      spec.Capture{OnReady: true},
	Ready:        ready.Probe{Kind: ready.Delay, After: time.Minute},
	ReadyTimeout: 5 * time.Minute,
}

func newNode() *node { return &node{templates: map[string]bool{}} }

// after lets the time pass, and everything that happens in it.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestOnReady(t *testing.T) {
	st := openStore(t)
	synctest.Test(t, func(t *testing.T) {
		k := &task{node: newNode(), settings: onReady}
		Watch(t.Context(), st, k)
		after(59 * time.Second)
		if n := k.taken(); n != 0 {
			t.Fatalf("%d captures before it was ready", n)
		}
		if o := k.last().Outcome; !strings.Contains(o, "waits for delay:1m") {
			t.Errorf("told is %q", o)
		}
		after(time.Hour)
		if !slices.Equal(k.captures, []string{string(checkpoint.Template)}) {
			t.Errorf("captures %q, want one template", k.captures)
		}
		if c := k.last(); c.Digest != "sha256:1" || c.Outcome != "template" || c.Mode != "OnReady" || c.Error != "" {
			t.Errorf("told is %+v", c)
		}
	})
}

// Of containers that start at once one captures.
func TestOnReadyOnce(t *testing.T) {
	st := openStore(t)
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		tasks := make([]*task, 3)
		for i := range tasks {
			tasks[i] = &task{node: n, settings: onReady}
			Watch(t.Context(), st, tasks[i])
		}
		after(time.Hour)
		captures, found := 0, 0
		for _, k := range tasks {
			captures += k.taken()
			if k.last().Outcome == "there is a template by now" {
				found++
			}
		}
		if captures != 1 || found != 2 {
			t.Errorf("%d captured and %d found a template, want 1 and 2", captures, found)
		}
	})
}

// What was restored is not captured again as a template, nor is what nobody asked for.
func TestNothingToCapture(t *testing.T) {
	st := openStore(t)
	synctest.Test(t, func(t *testing.T) {
		restored := &task{node: newNode(), settings: onReady, restored: true}
		never := &task{node: newNode()}
		noStore := &task{node: newNode(), settings: onReady}
		Watch(t.Context(), st, restored)
		Watch(t.Context(), st, never)
		Watch(t.Context(), nil, noStore)
		after(time.Hour)
		for i, k := range []*task{restored, never, noStore} {
			if k.taken() != 0 || len(k.notes) != 0 {
				t.Errorf("task %d: %d captures, told %+v", i, k.taken(), k.notes)
			}
		}
	})
}

// A failed capture is tried again by a later container, and by none before its time.
func TestOnReadyBacksOff(t *testing.T) {
	st := openStore(t)
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		run := func(fail error) *task {
			k := &task{node: n, settings: onReady}
			k.settings.Ready.After = 0
			k.set(false, fail)
			Watch(t.Context(), st, k)
			after(2 * time.Second)
			return k
		}
		broken := errors.New("disk full")
		k := run(broken)
		failedAt := time.Now()
		if c := k.last(); c.Error != "disk full" || c.NextTry.Sub(c.At) != firstRetry {
			t.Errorf("told is %+v", c)
		}
		k = run(nil)
		if c := k.last(); k.taken() != 0 || !strings.Contains(c.Outcome, "failed 1 times") || !strings.Contains(c.Outcome, "disk full") {
			t.Errorf("too early there were %d captures, told is %+v", k.taken(), c)
		}
		after(firstRetry - time.Since(failedAt))
		k = run(broken)
		if c := k.last(); k.taken() != 1 || c.NextTry.Sub(c.At) != 2*firstRetry {
			t.Errorf("%d captures, told is %+v", k.taken(), c)
		}
		after(2 * firstRetry)
		if k = run(nil); k.last().Digest == "" {
			t.Errorf("told is %+v", k.last())
		}
	})
}

func TestRetryAfter(t *testing.T) {
	for failures, want := range map[int]time.Duration{
		1: time.Minute, 2: 2 * time.Minute, 3: 4 * time.Minute,
		11: 1024 * time.Minute, 12: longestRetry, 1 << 40: longestRetry,
	} {
		if got := retryAfter(failures); got != want {
			t.Errorf("after %d failures: %s, want %s", failures, got, want)
		}
	}
}

// A program that is not ready in time is not captured, and the task's end is no failure.
func TestNotReady(t *testing.T) {
	st := openStore(t)
	synctest.Test(t, func(t *testing.T) {
		k := &task{node: newNode(), settings: onReady}
		k.settings.ReadyTimeout = 10 * time.Second
		Watch(t.Context(), st, k)
		after(11 * time.Second)
		if c := k.last(); k.taken() != 0 || !strings.Contains(c.Error, "ready-timeout, 10s") {
			t.Errorf("%d captures, told is %+v", k.taken(), c)
		}

		ctx, end := context.WithCancel(t.Context())
		ended := &task{node: newNode(), settings: onReady}
		Watch(ctx, st, ended)
		after(time.Second)
		end()
		after(time.Hour)
		if len(ended.notes) != 1 || ended.taken() != 0 {
			t.Errorf("%d captures of a task that ended, told is %+v", ended.taken(), ended.notes)
		}
	})
}

func TestEvery(t *testing.T) {
	st := openStore(t)
	synctest.Test(t, func(t *testing.T) {
		ctx, end := context.WithCancel(t.Context())
		defer end()
		const interval = time.Minute
		k := &task{node: newNode(), restored: true, settings: spec.Settings{Capture: spec.Capture{Every: interval}}}
		Watch(ctx, st, k)
		after(10*interval + 30*time.Second)
		if n := k.taken(); n != 10 || slices.ContainsFunc(k.captures, func(s string) bool { return s != string(checkpoint.ResumePoint) }) {
			t.Errorf("%d captures in ten intervals: %q", n, k.captures)
		}
		if c := k.last(); c.NextTry.Sub(c.At) != interval || c.Mode != "Every=1m0s" {
			t.Errorf("told is %+v", c)
		}

		k.set(true, nil)
		before := k.taken()
		after(10 * interval)
		if n := k.taken(); n != before {
			t.Errorf("%d captures while paused", n-before)
		}

		// Captures that fail become rare, and come back when they succeed.
		k.set(false, errors.New("disk full"))
		before = k.taken()
		after((2 + 4 + 8 + 8 + 8) * interval)
		if n := k.taken() - before; n < 4 || n > 6 {
			t.Errorf("%d captures that fail in 30 intervals", n)
		}
		if c := k.last(); c.Error != "disk full" || c.NextTry.Sub(c.At) != longestBackOff*interval {
			t.Errorf("told is %+v", c)
		}
		k.set(false, nil)
		after(longestBackOff * interval)
		before = k.taken()
		after(5 * interval)
		if n := k.taken() - before; n < 4 {
			t.Errorf("%d captures in five intervals after the failures", n)
		}

		end()
		before = k.taken()
		after(time.Hour)
		if n := k.taken(); n != before {
			t.Errorf("%d captures after the task's end", n-before)
		}
	})
}

package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Many callers ask anything of a few tasks, whose programs end and whose
// operations fail when they like. The bubble's clock makes it quick, and names
// a deadlock the moment it happens.
func TestHammer(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			rec := &recorder{}
			h := &hammer{t: t, reg: NewRegistry(rec), ids: []string{"a", "b", "c"}}
			var wg sync.WaitGroup
			for worker := range uint64(12) {
				wg.Go(func() {
					r := rand.New(rand.NewPCG(seed, worker))
					for range 150 {
						h.step(r)
					}
				})
			}
			wg.Wait()
			h.removeAll()
			// Programs of launches that failed end by themselves.
			time.Sleep(time.Minute)
			synctest.Wait()
			if err := checkOrder(rec.events); err != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
			if seed == 0 {
				wantEveryKind(t, rec.events)
			}
		})
	}
}

type hammer struct {
	t   *testing.T
	reg *Registry
	ids []string
}

// pause takes some of the bubble's time.
func pause(r *rand.Rand) { time.Sleep(time.Duration(r.IntN(5)) * time.Millisecond) }

func (h *hammer) step(r *rand.Rand) {
	pause(r)
	ctx, cancel := context.WithTimeout(h.t.Context(), time.Duration(1+r.IntN(40))*time.Millisecond)
	defer cancel()
	id := h.ids[r.IntN(len(h.ids))]
	task, err := h.reg.Get(id)
	if err != nil {
		h.expect(h.create(ctx, r.Uint64(), id))
		return
	}
	exec := fmt.Sprint("e", r.IntN(4))
	switch r.IntN(14) {
	case 0, 1, 2:
		_, err = task.Start(ctx)
	case 3:
		err = task.AddExec(ExecConfig{ID: exec})
	case 4, 5:
		_, err = task.StartExec(ctx, exec)
	case 6:
		err = task.Kill(ctx, []string{"", exec}[r.IntN(2)], []unix.Signal{unix.SIGTERM, unix.SIGKILL}[r.IntN(2)], r.IntN(2) == 0)
	case 7:
		err = task.Pause(ctx)
	case 8, 9:
		err = task.Resume(ctx)
	case 10:
		err = task.Capture(ctx, func(context.Context, bool) (string, error) { pause(r); return "c", fail(r) })
	case 11:
		err = errors.Join(task.Update(ctx, nil), task.Resize(exec, 1, 1), task.CloseStdin(""))
	case 12:
		if _, err = task.DeleteExec(ctx, exec); err == nil {
			_, err = task.Wait(ctx, "")
		}
	case 13:
		_, err = h.reg.Delete(ctx, id)
	}
	h.expect(err)
	if _, err := task.Info(""); err != nil {
		h.t.Error(err)
	}
}

// expect fails the test for an error that no caller can have deserved.
func (h *hammer) expect(err error) {
	switch {
	case err == nil, errdefs.IsNotFound(err), errdefs.IsFailedPrecondition(err), errdefs.IsAlreadyExists(err),
		errors.Is(err, context.DeadlineExceeded), errors.Is(err, errTest):
	default:
		h.t.Error(err)
	}
}

func fail(r *rand.Rand) error {
	if r.IntN(6) == 0 {
		return errTest
	}
	return nil
}

func (h *hammer) create(ctx context.Context, seed uint64, id string) error {
	_, err := h.reg.Create(ctx, id, Stdio{}, nil, func(context.Context, func()) (Init, error) {
		// Methods of one init run at the same time: each draw is behind a lock.
		var mu sync.Mutex
		r := rand.New(rand.NewPCG(seed, 0))
		draw := func(n int) int {
			mu.Lock()
			defer mu.Unlock()
			return r.IntN(n)
		}
		init := newFakeInit(10)
		init.restores = draw(2) == 0
		for _, m := range []string{"Start", "Exec", "Pause", "Resume", "Update", "KillRest", "Close", "Destroy"} {
			init.on[m] = func(context.Context) error {
				time.Sleep(time.Duration(draw(4)) * time.Millisecond)
				if draw(6) == 0 && m != "KillRest" {
					return errTest
				}
				return nil
			}
		}
		endLater := func(p *fakeProcess, within int) {
			after := time.Duration(draw(within)) * time.Millisecond
			go func() {
				time.Sleep(after)
				p.end(1)
			}()
		}
		init.newExec = func(context.Context, ExecConfig) (Process, error) {
			p := init.addExec()
			endLater(p, 30)
			return p, nil
		}
		endLater(init.fakeProcess, 200)
		if draw(8) == 0 {
			return nil, errTest
		}
		return init, nil
	})
	return err
}

func (h *hammer) removeAll() {
	for deadline := time.Now().Add(time.Hour); h.reg.Len() > 0; {
		if time.Now().After(deadline) {
			h.t.Fatalf("%d tasks cannot be deleted", h.reg.Len())
		}
		for _, id := range h.ids {
			if task, err := h.reg.Get(id); err == nil {
				h.expect(task.Kill(h.t.Context(), "", unix.SIGKILL, true))
				_, err := h.reg.Delete(h.t.Context(), id)
				h.expect(err)
			}
		}
		time.Sleep(time.Millisecond)
	}
}

// life is what an observer of events knows of one task.
type life struct {
	started, paused, exited bool
	execs                   map[string]string
}

// checkOrder holds the order of events that clients rely on.
func checkOrder(events []Event) error {
	lives := make(map[string]*life)
	for n, e := range events {
		if err := observe(lives, e); err != nil {
			return fmt.Errorf("event %d, %s: %w", n, word(e), err)
		}
	}
	if len(lives) > 0 {
		return fmt.Errorf("%d tasks were never told to be deleted", len(lives))
	}
	return nil
}

func observe(lives map[string]*life, e Event) error {
	require := func(ok bool, what string) error {
		if ok {
			return nil
		}
		return errors.New(what)
	}
	if e, ok := e.(CreatedEvent); ok {
		if lives[e.ID] != nil {
			return errors.New("created twice")
		}
		lives[e.ID] = &life{execs: make(map[string]string)}
		return nil
	}
	if e, ok := e.(DeletedEvent); ok {
		l := lives[e.ID]
		delete(lives, e.ID)
		return require(l != nil && l.exited, "deleted without an exit")
	}
	l := lives[word(e)[:1]]
	if l == nil {
		return errors.New("told of a task that does not exist")
	}
	if l.exited {
		return errors.New("told after the exit")
	}
	switch e := e.(type) {
	case StartedEvent:
		if err := require(!l.started, "started twice"); err != nil {
			return err
		}
		l.started = true
	case PausedEvent:
		if err := require(l.started && !l.paused, "paused out of order"); err != nil {
			return err
		}
		l.paused = true
	case ResumedEvent:
		if err := require(l.paused, "resumed out of order"); err != nil {
			return err
		}
		l.paused = false
	case CheckpointedEvent:
		return require(l.started, "checkpointed before its start")
	case ExecAddedEvent:
		if err := require(l.execs[e.ExecID] != "started", "added while it runs"); err != nil {
			return err
		}
		l.execs[e.ExecID] = "added"
	case ExecStartedEvent:
		if err := require(l.execs[e.ExecID] == "added", "started out of order"); err != nil {
			return err
		}
		l.execs[e.ExecID] = "started"
	case ExitedEvent:
		if e.ExecID != "" {
			if err := require(l.execs[e.ExecID] == "started", "exited out of order"); err != nil {
				return err
			}
			l.execs[e.ExecID] = "exited"
			return nil
		}
		for id, s := range l.execs {
			if s == "started" {
				return fmt.Errorf("init exited before %s", id)
			}
		}
		l.exited = true
	}
	return nil
}

// wantEveryKind makes sure that the hammer hits everything.
func wantEveryKind(t *testing.T, events []Event) {
	t.Helper()
	kinds := make(map[string]int)
	for _, e := range events {
		kinds[fmt.Sprintf("%T", e)]++
	}
	if len(kinds) != 9 { // All but OOMEvent, which is the Init's.
		t.Errorf("kinds of events: %v", kinds)
	}
}

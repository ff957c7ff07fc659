// Package auto captures running tasks without being asked: a template when the program
// is ready, or resume points while it runs.
//
// A task has one goroutine of this package at most, which Watch starts. It ends with its
// context, which is the task's life: it never holds up a start, an exit or a delete, and
// what it fails at is recorded and logged, and no trouble of the program. It has no
// locks of its own: what excludes what on a task is lifecycle's business, and
// between the shims of a node the store's.
package auto

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/log"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/store"
	"github.com/containerd-snap/snap/oci/spec"
	"github.com/containerd-snap/snap/shim/probe"
)

// Task is a running task.
type Task interface {
	probe.Target
	ID() string
	Settings() spec.Settings
	// Booted says that it was booted, not restored.
	Booted() bool
	// Paused says that its user has frozen it.
	Paused() bool
	Fingerprint(ctx context.Context) (checkpoint.Fingerprint, error)
	// HasTemplate says whether a container with the fingerprint would be restored.
	HasTemplate(ctx context.Context, f checkpoint.Fingerprint) (bool, error)
	// Capture takes and registers a checkpoint, and then removes what is more than the
	// host's limits. The task stands still for the first part of it only, and goes on
	// whatever comes of it.
	Capture(ctx context.Context, kind checkpoint.Kind) (checkpoint.Entry, error)
	// NoteCapture records what became of a capture.
	NoteCapture(ctx context.Context, c checkpoint.Capture)
}

// Watch captures the task as its settings ask, in a goroutine that ends with ctx.
func Watch(ctx context.Context, st *store.Store, t Task) {
	w := watch{
		task:     t,
		settings: t.Settings(),
		store:    st,
		log:      log.G(ctx).WithField("id", t.ID()),
	}
	switch {
	case st == nil: // a node without a usable store captures nothing; it said so when the shim began
	case w.settings.Capture.OnReady && t.Booted():
		go w.onReady(ctx)
	case w.settings.Capture.Every > 0:
		go w.every(ctx)
	}
}

// watch is one task that is watched.
type watch struct {
	task     Task
	settings spec.Settings
	store    *store.Store
	log      *log.Entry
}

// note records and logs what became of a capture. What the end of the task made of it
// is no news.
func (w *watch) note(ctx context.Context, c checkpoint.Capture) {
	if ctx.Err() != nil {
		return
	}
	c.Mode = w.settings.Capture.String()
	w.task.NoteCapture(ctx, c)
	l := w.log.WithField("capture", c.Mode)
	switch {
	case c.Error != "":
		l.WithField("reason", c.Error).WithField("next_try", c.NextTry).Warn("capture failed; the task goes on")
	case c.Digest != "":
		l.WithField("checkpoint", c.Digest).Info("captured: " + c.Outcome)
	default:
		l.Debug("capture: " + c.Outcome)
	}
}

// The pause before a failed capture of a fingerprint is tried again: it doubles with
// each failure in a row.
const (
	firstRetry   = time.Minute
	longestRetry = 24 * time.Hour
)

// retryAfter is the pause after so many failures in a row.
func retryAfter(failures int) time.Duration {
	pause := firstRetry
	for range failures - 1 {
		if pause = 2 * pause; pause >= longestRetry {
			return longestRetry
		}
	}
	return pause
}

// onReady waits until the program is ready and captures a template, unless there is one
// by then: of several containers that start at once, one captures.
func (w *watch) onReady(ctx context.Context) {
	w.note(ctx, checkpoint.Capture{Outcome: "waits for " + w.settings.Ready.String()})
	f, err := w.task.Fingerprint(ctx)
	if err != nil {
		w.note(ctx, failed(err, time.Time{}))
		return
	}
	err = w.ready(ctx)
	if ctx.Err() != nil {
		return
	}
	turn, terr := w.store.TakeTurn(ctx, f.Key())
	if terr != nil {
		w.note(ctx, failed(terr, time.Time{}))
		return
	}
	defer turn.Release()
	last := turn.Attempt()
	switch has, herr := w.task.HasTemplate(ctx, f); {
	case herr != nil:
		w.note(ctx, failed(herr, time.Time{}))
		return
	case has:
		w.note(ctx, checkpoint.Capture{Outcome: "there is a template by now"})
		return
	case time.Now().Before(last.NextTry):
		w.note(ctx, checkpoint.Capture{
			Outcome: fmt.Sprintf("nothing tried: it failed %d times in a row, the last time: %s", last.Failures, last.Reason),
			NextTry: last.NextTry,
		})
		return
	}
	var e checkpoint.Entry
	if err == nil {
		e, err = w.task.Capture(ctx, checkpoint.Template)
	}
	now := time.Now().UTC()
	switch {
	case ctx.Err() != nil:
		// The task has ended, which is no failure of its capture.
	case err != nil:
		last.Failures++
		last.Reason, last.At, last.NextTry = err.Error(), now, now.Add(retryAfter(last.Failures))
		if kerr := turn.Failed(last); kerr != nil {
			w.log.WithError(kerr).Warn("keep a failed capture")
		}
		w.note(ctx, failed(err, last.NextTry))
	default:
		if serr := turn.Succeeded(); serr != nil {
			w.log.WithError(serr).Warn("keep a capture")
		}
		w.note(ctx, checkpoint.Capture{At: now, Digest: e.Digest, Outcome: "template"})
	}
}

// ready waits until the program is ready, and warms it up.
func (w *watch) ready(ctx context.Context) error {
	s := w.settings
	ctx, cancel := context.WithTimeoutCause(ctx, s.ReadyTimeout, errors.New("not ready within ready-timeout, "+s.ReadyTimeout.String()))
	defer cancel()
	if err := probe.Wait(ctx, w.task, s.Ready); err != nil {
		return err
	}
	return probe.Warm(ctx, w.task, s.Warm)
}

// every captures resume points until the task ends.
func (w *watch) every(ctx context.Context) {
	interval := w.settings.Capture.Every
	pause := interval
	w.note(ctx, checkpoint.Capture{Outcome: "waits for the time", NextTry: time.Now().UTC().Add(pause)})
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		if w.task.Paused() {
			continue // it is as it was
		}
		e, err := w.task.Capture(ctx, checkpoint.ResumePoint)
		now := time.Now().UTC()
		if err != nil {
			// Each attempt makes the program stand still: not too often for nothing.
			pause = min(2*pause, longestBackOff*interval)
			w.note(ctx, failed(err, now.Add(pause)))
			continue
		}
		pause = interval
		w.note(ctx, checkpoint.Capture{At: now, Digest: e.Digest, Outcome: "resume point", NextTry: now.Add(pause)})
	}
}

// longestBackOff is how many intervals lie between two captures that fail, at most.
const longestBackOff = 8

func failed(err error, next time.Time) checkpoint.Capture {
	return checkpoint.Capture{At: time.Now().UTC(), Outcome: "failed", Error: err.Error(), NextTry: next}
}

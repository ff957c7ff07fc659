// Package tally counts what happens on a node: starts, captures, prunes. The counts
// only grow, and outlive the containers and the records of their starts.
//
// It is pure: the store keeps a tally on disk, snapctl writes it as metrics. What can be
// counted is a fixed set, so that a tally has a bounded size, whatever the
// containers are called. It has no locks.
package tally

import (
	"slices"
	"time"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/retain"
)

// Outcome is what became of a start.
type Outcome string

// The outcomes.
const (
	Booted   Outcome = "boot"
	Restored Outcome = "restore"
	// FellBack booted after a failed restore.
	FellBack Outcome = "fallback"
	// Failed did not start.
	Failed Outcome = "failed"
)

// Outcomes lists all of them.
var Outcomes = []Outcome{Booted, Restored, FellBack, Failed}

// Start is one kind of start.
type Start struct {
	// Decision is empty if the start failed before there was one.
	Decision checkpoint.Action
	Reason   checkpoint.Class
	Outcome  Outcome
}

// Result is what became of a capture.
type Result string

// The results.
const (
	Registered Result = "registered"
	Refused    Result = "failed"
)

// Results lists both.
var Results = []Result{Registered, Refused}

// Capture is one kind of capture.
type Capture struct {
	Kind   checkpoint.Kind
	Result Result
}

// Kinds lists the kinds of checkpoints.
var Kinds = []checkpoint.Kind{checkpoint.Template, checkpoint.ResumePoint}

// Tally is all that is counted.
type Tally struct {
	Starts map[Start]int64
	// StartTimes are those of starts with an outcome.
	StartTimes map[Outcome]*Histogram
	Captures   map[Capture]int64
	// CaptureTimes are those of whole captures, PauseTimes how long programs stood still.
	CaptureTimes, PauseTimes Histogram
	// Quarantined counts checkpoints that failed too often.
	Quarantined int64
	Pruned      map[retain.Cause]int64
	PrunedBytes int64
}

// AddStart counts a start by its record.
func (t *Tally) AddStart(r checkpoint.Start) {
	s := Start{Decision: r.Decision.Action, Reason: r.Decision.Class, Outcome: Booted}
	switch {
	case r.Error != "":
		s.Outcome = Failed
	case r.Outcome == checkpoint.Restore:
		s.Outcome = Restored
	case r.Decision.Action == checkpoint.Restore:
		s.Outcome = FellBack
	}
	if !slices.Contains(checkpoint.Classes, s.Reason) {
		s.Reason = checkpoint.ClassOther
	}
	add(&t.Starts, s, 1)
	var ms float64
	for _, p := range r.Phases {
		ms += p.MS
	}
	if t.StartTimes == nil {
		t.StartTimes = map[Outcome]*Histogram{}
	}
	if t.StartTimes[s.Outcome] == nil {
		t.StartTimes[s.Outcome] = new(Histogram)
	}
	t.StartTimes[s.Outcome].Add(time.Duration(ms * float64(time.Millisecond)))
}

// AddCapture counts a capture that took so long. The checkpoint is nil if it failed.
func (t *Tally) AddCapture(kind checkpoint.Kind, c *checkpoint.Checkpoint, took time.Duration) {
	if kind != checkpoint.ResumePoint {
		kind = checkpoint.Template
	}
	if c == nil {
		add(&t.Captures, Capture{Kind: kind, Result: Refused}, 1)
		return
	}
	add(&t.Captures, Capture{Kind: kind, Result: Registered}, 1)
	t.CaptureTimes.Add(took)
	t.PauseTimes.Add(time.Duration(c.Timing.PauseMS * float64(time.Millisecond)))
}

// AddPruned counts a checkpoint that was removed for a budget.
func (t *Tally) AddPruned(cause retain.Cause, bytes int64) {
	if slices.Contains(retain.Causes, cause) {
		add(&t.Pruned, cause, 1)
		t.PrunedBytes += max(0, bytes)
	}
}

func add[K comparable](m *map[K]int64, key K, n int64) {
	if *m == nil {
		*m = map[K]int64{}
	}
	(*m)[key] += n
}

// Bounds are the upper bounds of a histogram's buckets. They are on disk by their
// place in this list: it may only grow at its end, by larger ones.
var Bounds = []time.Duration{
	5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond,
	250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 5 * time.Second,
	10 * time.Second, 30 * time.Second, time.Minute, 5 * time.Minute,
}

// Histogram counts durations.
type Histogram struct {
	// Buckets has a count for each of Bounds: of what is not longer than it, and longer
	// than the one before.
	Buckets []int64
	// Count is that of all, Sum that of their times.
	Count int64
	Sum   time.Duration
}

// Add counts a duration.
func (h *Histogram) Add(d time.Duration) {
	d = max(0, d)
	h.Count++
	h.Sum += d
	for len(h.Buckets) < len(Bounds) {
		h.Buckets = append(h.Buckets, 0)
	}
	for i, b := range Bounds {
		if d <= b {
			h.Buckets[i]++
			return
		}
	}
}

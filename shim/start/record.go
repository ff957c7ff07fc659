package start

import (
	"context"
	"os"
	"sync"
	"time"

	"github.com/containerd/log"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/oci/spec"
)

// recorder measures one start and keeps its record.
type recorder struct {
	s *Starter

	// mu guards the fields below.
	mu    sync.Mutex
	start checkpoint.Start
	// begun is when the current half (Create or Start) began, last when the
	// last phase ended.
	last time.Time
}

func newRecorder(s *Starter, req Request) *recorder {
	now := time.Now()
	return &recorder{s: s, last: now, start: checkpoint.Start{
		Shim:      s.Shim.phases(now),
		Namespace: s.Namespace,
		Container: req.ID,
		Bundle:    req.Bundle,
		ShimPID:   os.Getpid(),
		Address:   s.Address,
		At:        now,
	}}
}

// phase ends a phase.
func (r *recorder) phase(name string) {
	r.mu.Lock()
	now := time.Now()
	r.start.Phases = append(r.start.Phases, checkpoint.Phase{
		Name: name, AtMS: milliseconds(r.last.Sub(r.start.At)), MS: milliseconds(now.Sub(r.last)),
	})
	r.last = now
	r.mu.Unlock()
	if r.s.OnPhase != nil {
		r.s.OnPhase(r.start.Container, name)
	}
}

// named notes what users call the container.
func (r *recorder) named(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.start.Name = name
}

// resume begins the second half: what was between Create and Start is the caller's time.
func (r *recorder) resume() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = time.Now()
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func (r *recorder) decided(p *plan) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.start.Decision, r.start.Outcome, r.start.Fingerprint = p.decision, p.decision.Action, p.fingerprint
	if p.decision.Action == checkpoint.Restore {
		r.start.Memory, r.start.MemoryReason = p.memory, p.memoryReason
		r.start.Fallback = "" // another resume point instead of a boot
	}
}

func (r *recorder) fellBack(ctx context.Context, cause error) {
	r.mu.Lock()
	r.start.Outcome, r.start.Fallback = checkpoint.Boot, cause.Error()
	r.start.Memory, r.start.MemoryReason = "", ""
	d := r.start.Decision
	r.mu.Unlock()
	r.phase("failed restore")
	log.G(ctx).WithFields(log.Fields{"id": r.start.Container, "ns": r.start.Namespace, "checkpoint": d.Digest, "reason": cause.Error()}).
		Warn("restore failed: the task boots, or goes on from an older resume point")
}

// failed keeps the record of a start that came to nothing.
func (r *recorder) failed(ctx context.Context, cause error) {
	r.mu.Lock()
	r.start.Error = cause.Error()
	st := r.start
	r.mu.Unlock()
	r.keep(ctx)
	r.s.started(ctx, st)
}

// done keeps the record of a start that succeeded, and logs its one line.
func (r *recorder) done(ctx context.Context, pid int) {
	r.mu.Lock()
	r.start.PID = pid
	st := r.start
	var total float64
	for _, p := range st.Phases {
		total += p.MS
	}
	r.mu.Unlock()
	log.G(ctx).WithFields(log.Fields{
		"id": st.Container, "ns": st.Namespace, "checkpoint": st.Decision.Digest,
		"decision": st.Decision.Action, "outcome": st.Outcome, "reason": st.Decision.Reason, "took_ms": total,
	}).Info("task started")
	r.keep(ctx)
	r.s.started(ctx, st)
}

// bounded notes that the host changed what the container asks for.
func (r *recorder) bounded(ctx context.Context, asked spec.Capture, why string) {
	r.mu.Lock()
	r.start.Capture = &checkpoint.Capture{Mode: asked.String(), Outcome: why}
	r.mu.Unlock()
	log.G(ctx).WithField("id", r.start.Container).WithField("capture", asked.String()).WithField("reason", why).Info("capture is bounded")
}

// outcome is how the task was started.
func (r *recorder) outcome() checkpoint.Action {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.start.Outcome
}

// captured adds what became of a capture.
func (r *recorder) captured(ctx context.Context, c checkpoint.Capture) {
	r.amend(ctx, func(st *checkpoint.Start) { st.Capture = &c })
}

// amend adds to the record of a start that is over, unless the container was started again
// since: the record is that start's then.
func (r *recorder) amend(ctx context.Context, change func(*checkpoint.Start)) {
	r.mu.Lock()
	change(&r.start)
	st := r.start
	r.mu.Unlock()
	if r.s.Store == nil {
		return
	}
	if last, err := r.s.Store.Start(st.Namespace, st.Container); err != nil || !last.At.Equal(st.At) {
		return
	}
	r.keep(ctx)
}

func (r *recorder) keep(ctx context.Context) {
	if r.s.Store == nil {
		return
	}
	r.mu.Lock()
	st := r.start
	r.mu.Unlock()
	if err := r.s.Store.PutStart(st); err != nil {
		log.G(ctx).WithError(err).Warn("keep the record of the start")
	}
}

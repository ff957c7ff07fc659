package start

import (
	"context"
	"maps"
	"strconv"
	"time"

	"github.com/containerd/log"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/tally"
)

// The topics on which is announced what containerd has no event for. docs/operations.md
// lists the fields.
const (
	topicStart   = "/snap/start"
	topicCapture = "/snap/capture"
	topicPrune   = "/snap/prune"
)

// announce publishes an event of our own, without those fields that are empty.
func (s *Starter) announce(topic, id string, fields map[string]string) {
	if s.Announce == nil {
		return
	}
	maps.DeleteFunc(fields, func(_, value string) bool { return value == "" })
	s.Announce(topic, id, fields)
}

// number writes a number of milliseconds.
func number(ms float64) string { return strconv.FormatFloat(ms, 'f', 3, 64) }

// count changes the node's tally.
func (s *Starter) count(ctx context.Context, durable bool, change func(*tally.Tally)) {
	if s.Store == nil {
		return
	}
	if err := s.Store.Count(durable, change); err != nil {
		log.G(ctx).WithError(err).Warn("count for the node's metrics")
	}
}

// started counts and announces a start that succeeded or failed.
func (s *Starter) started(ctx context.Context, r checkpoint.Start) {
	s.count(ctx, false, func(t *tally.Tally) { t.AddStart(r) })
	var ms float64
	for _, p := range r.Phases {
		ms += p.MS
	}
	s.announce(topicStart, r.Container, map[string]string{
		"decision":        string(r.Decision.Action),
		"reason":          r.Decision.Reason,
		"reason_class":    string(r.Decision.Class),
		"checkpoint":      r.Decision.Digest,
		"checkpoint_name": r.Decision.Name,
		"outcome":         string(r.Outcome),
		"fallback":        r.Fallback,
		"error":           r.Error,
		"took_ms":         number(ms),
	})
}

// captured counts and announces a capture for the store, and holds the store's budgets
// after one that succeeded.
func (i *Init) captured(ctx context.Context, kind checkpoint.Kind, e checkpoint.Entry, err error, took time.Duration) {
	if kind == "" {
		kind = checkpoint.Template
	}
	fields := map[string]string{"kind": string(kind), "took_ms": number(milliseconds(took))}
	if err != nil {
		i.starter.count(ctx, true, func(t *tally.Tally) { t.AddCapture(kind, nil, took) })
		fields["error"] = err.Error()
		i.starter.announce(topicCapture, i.req.ID, fields)
		return
	}
	i.starter.count(ctx, true, func(t *tally.Tally) { t.AddCapture(kind, &e.Checkpoint, took) })
	fields["checkpoint"], fields["checkpoint_name"] = e.Digest, e.Name
	fields["bytes"], fields["pause_ms"] = strconv.FormatInt(e.Checkpoint.Bytes(), 10), number(e.Checkpoint.Timing.PauseMS)
	i.starter.announce(topicCapture, i.req.ID, fields)
	i.prune(ctx)
}

// prune holds the store's budgets. It never fails the capture before it.
func (i *Init) prune(ctx context.Context) {
	pruned, err := i.starter.Store.Prune(ctx, i.config.Limits.Retain(), time.Now(), false)
	if err != nil {
		log.G(ctx).WithError(err).Warn("hold the budgets of the checkpoint store")
	}
	for _, p := range pruned {
		log.G(ctx).WithFields(log.Fields{"checkpoint": p.Entry.Digest, "reason": p.Reason, "in_use": p.InUse != ""}).Info("prune checkpoint")
		if p.InUse == "" {
			i.starter.announce(topicPrune, p.Entry.Checkpoint.Source.Container, map[string]string{
				"checkpoint": p.Entry.Digest, "checkpoint_name": p.Entry.Name, "cause": string(p.Cause), "reason": p.Reason,
				"bytes": strconv.FormatInt(p.Frees, 10),
			})
		}
	}
	if err := i.starter.Store.CountPruned(pruned); err != nil {
		log.G(ctx).WithError(err).Warn("count for the node's metrics")
	}
}

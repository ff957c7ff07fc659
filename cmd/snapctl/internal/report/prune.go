package report

import (
	"fmt"

	"github.com/containerd-snap/snap/checkpoint/retain"
	"github.com/containerd-snap/snap/checkpoint/store"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/human"
)

// Pruning is what a prune did, or would do: what `snapctl prune --json` prints.
type Pruning struct {
	DryRun bool `json:"dryRun"`
	// Removed went, in this order; InUse should have gone.
	Removed []PrunedEntry `json:"removed"`
	InUse   []PrunedEntry `json:"inUse"`
	// FreedBytes is the size of what went, but for what others share with it.
	FreedBytes int64 `json:"freedBytes"`
	// Swept is the number of things that killed processes had left behind.
	Swept int `json:"swept"`
}

// PrunedEntry is a checkpoint that exceeds a budget.
type PrunedEntry struct {
	Digest string       `json:"digest"`
	Name   string       `json:"name,omitempty"`
	Image  string       `json:"image,omitempty"`
	Bytes  int64        `json:"bytes"`
	Cause  retain.Cause `json:"cause"`
	Reason string       `json:"reason"`
	// InUse says why it is still there.
	InUse string `json:"inUse,omitempty"`
}

// NewPruning sums up what the store did.
func NewPruning(pruned []store.Pruned, swept int, dryRun bool) Pruning {
	p := Pruning{DryRun: dryRun, Swept: swept, Removed: []PrunedEntry{}, InUse: []PrunedEntry{}}
	for _, x := range pruned {
		c := x.Entry.Checkpoint
		e := PrunedEntry{
			Digest: x.Entry.Digest, Name: x.Entry.Name, Image: c.Source.Image, Bytes: c.Bytes(),
			Cause: x.Cause, Reason: x.Reason, InUse: x.InUse,
		}
		if x.InUse != "" {
			p.InUse = append(p.InUse, e)
			continue
		}
		p.Removed = append(p.Removed, e)
		p.FreedBytes += x.Frees
	}
	return p
}

// Prune writes a table of what went and why, and what that freed.
func (r *Report) Prune(p Pruning) error {
	if n := len(p.Removed) + len(p.InUse); n > 0 {
		rows := []row{{"NAME", "DIGEST", "IMAGE", "SIZE", "REASON"}}
		for _, e := range p.Removed {
			rows = append(rows, prunedRow(e, e.Reason))
		}
		for _, e := range p.InUse {
			rows = append(rows, prunedRow(e, "in use, and stays: "+e.Reason))
		}
		if err := columns(r.Out, 0, "", rows); err != nil {
			return err
		}
	}
	did := "removed"
	if p.DryRun {
		did = "would remove"
	}
	_, err := fmt.Fprintf(r.Out, "%s %s, %s\n", did, human.Count(len(p.Removed), "checkpoint"), human.Bytes(p.FreedBytes))
	return err
}

func prunedRow(e PrunedEntry, why string) row {
	return row{dash(e.Name), shortDigest(e.Digest), dash(human.Short(e.Image, imageWidth)), human.Bytes(e.Bytes), human.Text(why)}
}

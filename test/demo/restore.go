package main

import (
	"bytes"
	"context"
	"fmt"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/test/harness"
	"github.com/containerd-snap/snap/test/measure"
)

// showRestore starts the program with the command that booted it before.
func showRestore(ctx context.Context, d *demo) (string, error) {
	var last life
	for n := range d.runs {
		id := fmt.Sprintf("%s-%d", restoredID, n+1)
		l, err := d.start(ctx, id, runCommand(id, "--runtime", harness.Runtime), nil)
		if err != nil {
			return "", err
		}
		if err := d.isRestored(ctx, l); err != nil {
			return "", err
		}
		if err := d.goesOn(l); err != nil {
			return "", err
		}
		d.figures.RestoredRunsMS = append(d.figures.RestoredRunsMS, measure.Milliseconds(l.took))
		if err := measure.Remove(ctx, d.node, id); err != nil {
			return "", err
		}
		last = l
	}
	d.figures.RestoredMS = measure.Median(d.figures.RestoredRunsMS)
	return fmt.Sprintf("first answer after %s; the same life: boot id %.8s, answer number %d, and the capture fell between numbers %d and %d",
		measure.Durations(d.figures.RestoredRunsMS), last.first.BootID, last.first.Counter, d.captured.from-1, d.captured.to-1), nil
}

// isRestored verifies that the start was a restore from the demo's checkpoint.
func (d *demo) isRestored(ctx context.Context, l life) error {
	s, err := measure.Explain(ctx, d.node, l.id)
	if err != nil {
		return err
	}
	if s.Outcome != checkpoint.Restore || s.Decision.Name != checkpointName {
		return fmt.Errorf("restore %s: the decision was %s (%s), the outcome %s (%s)", l.id, s.Decision.Action, s.Decision.Reason, s.Outcome, s.Fallback)
	}
	return nil
}

// goesOn verifies that the program is the captured one, with its memory.
func (d *demo) goesOn(l life) error {
	a, b := l.first, d.cold.first
	switch {
	case a.BootID != b.BootID:
		return fmt.Errorf("%s answers with boot id %s, not with %s of the captured program", l.id, a.BootID, b.BootID)
	case !d.captured.contains(a.Counter):
		return fmt.Errorf("%s answers with number %d, not with one from %d to %d as the captured program would", l.id, a.Counter, d.captured.from, d.captured.to)
	}
	return d.answersAlike(l)
}

// answersAlike verifies that the program found what the first boot found.
func (d *demo) answersAlike(l life) error {
	if !bytes.Equal(l.first.Result, d.cold.first.Result) {
		return fmt.Errorf("%s answers %s, and %s did %s", l.id, l.first.Result, coldID, d.cold.first.Result)
	}
	return nil
}

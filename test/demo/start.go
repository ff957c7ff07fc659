package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/containerd-snap/snap/test/harness"
	"github.com/containerd-snap/snap/test/measure"
	"github.com/containerd-snap/snap/test/search"
)

// life is a started program.
type life struct {
	id      string
	program *search.Program
	// first is its first answer since this start.
	first search.Answer
	// took is the time from before the command to the first answer.
	took time.Duration
}

// runCommand is what a user types to run the program, without "ctr".
func runCommand(id string, flags ...string) []string {
	return append(append([]string{"run", "--detach"}, flags...), search.Image, id)
}

// start runs a ctr command that starts the task id, and waits for the program's
// first answer. prepare is called with the process's id as soon as there is one;
// it may be nil.
func (d *demo) start(ctx context.Context, id string, command []string, prepare func(pid int) error) (life, error) {
	l := life{id: id}
	var soon *search.Program
	m, err := measure.Run(ctx, d.node, measure.Start{
		ID:      id,
		Command: command,
		Prepare: func(pid int) error {
			if err := d.noteNetwork(pid); err != nil {
				return err
			}
			l.program, soon = search.Connect(pid, measure.Patient), search.Connect(pid, measure.Impatient)
			if prepare == nil {
				return nil
			}
			return prepare(pid)
		},
		Answer: func(ctx context.Context, _ int) (err error) {
			l.first, err = soon.Ask(ctx)
			return err
		},
	})
	l.took = m.Took
	return l, err
}

// showBoot boots the program: nothing is registered that could be restored.
func showBoot(ctx context.Context, d *demo) (string, error) {
	l, err := d.start(ctx, coldID, runCommand(coldID, "--runtime", harness.Runtime), nil)
	if err != nil {
		return "", err
	}
	d.cold = l
	d.figures.ColdMS = measure.Milliseconds(l.took)
	d.figures.Program = programFacts{Documents: l.first.Documents, Words: l.first.Words, RSSMB: l.first.RSSMB}
	return fmt.Sprintf("first answer after %s: %d documents, %d words, %.0f MB resident, boot id %.8s",
		measure.Duration(d.figures.ColdMS), l.first.Documents, l.first.Words, l.first.RSSMB, l.first.BootID), nil
}

// prepareImage makes the image and loads it into the node.
func prepareImage(ctx context.Context, d *demo) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, setupTimeout)
	defer cancel()
	archive, err := search.MakeImage(ctx, d.node.Dir)
	if err != nil {
		return "", err
	}
	defer os.Remove(archive)
	if err := d.node.Import(ctx, archive); err != nil {
		return "", err
	}
	return search.Image + ", a Debian with Python, NumPy, pandas, NetworkX and SymPy", nil
}

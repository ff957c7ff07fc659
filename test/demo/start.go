package main

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"

	"github.com/containerd-snap/snap/test/harness"
)

// pollInterval is how often it is asked whether the program answers yet.
const pollInterval = 2 * time.Millisecond

// life is a started program.
type life struct {
	id      string
	program *program
	// first is its first answer since this start.
	first answer
	// took is the time from before the command to the first answer.
	took time.Duration
}

// runCommand is what a user types to run the program, without "ctr".
func runCommand(id string, flags ...string) []string {
	return append(append([]string{"run", "--detach"}, flags...), image, id)
}

// start runs a ctr command that starts the task id, and waits for the program's
// first answer. prepare is called with the process's id as soon as there is one;
// it may be nil.
func (d *demo) start(ctx context.Context, id string, command []string, prepare func(pid int) error) (life, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	waiting, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	running, kill := toTheEnd(ctx, startTimeout)
	defer kill()
	ended := make(chan error, 1)
	began := time.Now()
	go func() {
		_, err := d.node.Ctr(running, command...)
		if err != nil {
			giveUp(err)
		}
		ended <- err
	}()
	l := life{id: id}
	err := d.firstAnswer(waiting, &l, prepare)
	l.took = time.Since(began)
	if failed := <-ended; failed != nil && err == nil {
		err = failed
	}
	if err != nil {
		return l, fmt.Errorf("start %s: %w", id, err)
	}
	return l, nil
}

// firstAnswer waits until the task has a process, and then for its first answer.
func (d *demo) firstAnswer(ctx context.Context, l *life, prepare func(pid int) error) error {
	var pid int
	err := poll(ctx, func() (_ bool, err error) {
		pid, err = d.pid(ctx, l.id)
		return pid != 0, err
	})
	if err != nil {
		return err
	}
	if err := d.noteNetwork(pid); err != nil {
		return err
	}
	if prepare != nil {
		if err := prepare(pid); err != nil {
			return err
		}
	}
	l.program = connect(pid, patient)
	soon := connect(pid, impatient)
	return poll(ctx, func() (bool, error) {
		// Until the program listens there is no answer: an error says nothing.
		var err error
		l.first, err = soon.ask(ctx)
		return err == nil, nil
	})
}

// poll calls done every few milliseconds until it returns true or an error, or
// ctx ends: then the error is the cause of that.
func poll(ctx context.Context, done func() (bool, error)) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		ok, err := done()
		if ctx.Err() != nil && !ok {
			return context.Cause(ctx)
		}
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// pid is the task's process id, or 0 as long as there is none.
func (d *demo) pid(ctx context.Context, id string) (int, error) {
	r, err := d.node.Client().TaskService().Get(ctx, &tasks.GetRequest{ContainerID: id})
	switch {
	case errdefs.IsNotFound(errgrpc.ToNative(err)):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("ask containerd for task %s: %w", id, err)
	}
	return int(r.GetProcess().GetPid()), nil
}

// showBoot boots the program: nothing is registered that could be restored.
func showBoot(ctx context.Context, d *demo) (string, error) {
	l, err := d.start(ctx, coldID, runCommand(coldID, "--runtime", harness.Runtime), nil)
	if err != nil {
		return "", err
	}
	d.cold = l
	d.figures.ColdMS = milliseconds(l.took)
	d.figures.Program = programFacts{Documents: l.first.Documents, Words: l.first.Words, RSSMB: l.first.RSSMB}
	return fmt.Sprintf("first answer after %s: %d documents, %d words, %.0f MB resident, boot id %.8s",
		duration(d.figures.ColdMS), l.first.Documents, l.first.Words, l.first.RSSMB, l.first.BootID), nil
}

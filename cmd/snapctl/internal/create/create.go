// Package create has a running container captured by the shim that runs it, and
// says in an operator's words why that cannot be done.
//
// It only asks: the shim does the work, and registers the checkpoint. It has no
// state and no locks.
package create

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/containerd/errdefs"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/store"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/human"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/progress"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/record"
	"github.com/containerd-snap/snap/shim/capture"
)

// ErrNoShim is returned where the shim of a container does not answer.
var ErrNoShim = errors.New("its shim is gone")

// Request says what to capture.
type Request struct {
	Namespace string
	// Container is the full id.
	Container string
	// Name is what the checkpoint is to be called; empty for none.
	Name string
	// Replace takes the name from the checkpoint that has it.
	Replace bool
	// Stop ends the task when the checkpoint is registered.
	Stop bool
	// Timeout bounds the capture; it must be positive.
	Timeout time.Duration
}

// Run has the container captured and returns the registered checkpoint. It
// shows the progress on show.
//
// Errors wrap checkpoint.ErrInvalid for a name or id that cannot be one,
// checkpoint.ErrExists for a name that is taken, checkpoint.ErrNotFound for a
// container that the runtime does not know, ErrNoShim where its shim does not
// answer, and the context's where it ended or the timeout passed.
func Run(ctx context.Context, st *store.Store, req Request, show progress.Output) (checkpoint.Entry, error) {
	e, err := run(ctx, st, req, show)
	if err != nil {
		return e, fmt.Errorf("capture %s: %w", human.Text(req.Container), err)
	}
	return e, nil
}

func run(ctx context.Context, st *store.Store, req Request, show progress.Output) (checkpoint.Entry, error) {
	var none checkpoint.Entry
	if err := checkName(st, req); err != nil {
		return none, err
	}
	start, err := record.Find(st, req.Namespace, req.Container)
	if err != nil {
		return none, err
	}
	req.Container = start.Container
	if start.Error != "" {
		return none, fmt.Errorf("its last start did not succeed: %s; `snapctl explain -n %s %s` tells more", start.Error, req.Namespace, req.Container)
	}
	ctx, cancel := context.WithTimeout(ctx, req.Timeout)
	defer cancel()
	drafts := newDrafts(st.Root())
	stop := show.Show(func(elapsed time.Duration) string {
		return drafts.line(req.Container, elapsed)
	})
	e, err := capture.Call(ctx, start.Address, capture.Request{
		ID:      req.Container,
		Name:    req.Name,
		Replace: req.Replace,
		Stop:    req.Stop,
	})
	stop()
	if err != nil {
		return none, explain(ctx, err, req)
	}
	return e, nil
}

// checkName refuses a name before a capture is paid for. The shim checks again.
func checkName(st *store.Store, req Request) error {
	if req.Name == "" {
		return nil
	}
	err := st.CheckName(req.Name)
	switch {
	case errors.Is(err, checkpoint.ErrExists) && req.Replace:
		return nil
	case errors.Is(err, checkpoint.ErrExists):
		return fmt.Errorf("%w (--replace moves the name to the new one, and the other stays registered)", err)
	}
	return err
}

// explain says what an error of the call means, and what to do.
func explain(ctx context.Context, err error, req Request) error {
	var op *net.OpError
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded), errors.Is(err, context.DeadlineExceeded): // the shim has the same deadline
		return fmt.Errorf("no answer within %s: the shim gives the capture up; large tasks on slow disks need a longer --timeout (%w)", req.Timeout, context.DeadlineExceeded)
	case ctx.Err() != nil:
		return fmt.Errorf("interrupted: `snapctl ls` tells whether the checkpoint was registered before (%w)", context.Cause(ctx))
	case errors.As(err, &op):
		return fmt.Errorf("%w: the container ended, or its shim was killed; start the container again (%w)", ErrNoShim, err)
	case errdefs.IsNotFound(err):
		return fmt.Errorf("the container has ended or was deleted: start it again (%w)", err)
	case errdefs.IsNotImplemented(err):
		return fmt.Errorf("its shim is of a version without capture: start the container again (%w)", err)
	case errors.Is(err, capture.ErrLost):
		return fmt.Errorf("%w: it ended during the capture; containerd's log tells why (%w)", ErrNoShim, err)
	}
	return err
}

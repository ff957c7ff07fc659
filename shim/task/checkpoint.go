package task

import (
	"context"
	"fmt"

	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/shim/capture"
	"github.com/containerd-snap/snap/shim/libct"
	"github.com/containerd-snap/snap/shim/start"
)

// Checkpoint writes a task's images to a directory, as the stock shim does.
// Without options the task goes on.
func (s *Service) Checkpoint(ctx context.Context, r *taskapi.CheckpointTaskRequest) (*emptypb.Empty, error) {
	t, init, err := s.get(r.ID)
	if err != nil {
		return nil, err
	}
	opts, err := checkpointOptions(r.GetOptions())
	if err != nil {
		return nil, err
	}
	if r.Path == "" {
		return nil, fmt.Errorf("checkpoint task %s: no directory for the images is given: %w", r.ID, errdefs.ErrInvalidArgument)
	}
	return empty, t.Capture(ctx, func(ctx context.Context, wasPaused bool) (string, error) {
		return r.Path, init.Checkpoint(ctx, start.PlainCheckpoint{
			Images: libct.Images{
				Dir:                 r.Path,
				Work:                opts.GetWorkPath(),
				TCPEstablished:      opts.GetOpenTcp(),
				FileLocks:           opts.GetFileLocks(),
				ExternalUnixSockets: opts.GetExternalUnixSockets(),
				Terminal:            opts.GetTerminal(),
			},
			ParentPath: opts.GetParentPath(),
			Exit:       opts.GetExit(),
		}, wasPaused)
	})
}

func checkpointOptions(in *anypb.Any) (*options.CheckpointOptions, error) {
	if len(in.GetValue()) == 0 {
		return nil, nil
	}
	var opts options.CheckpointOptions
	if err := typeurl.UnmarshalTo(in, &opts); err != nil {
		return nil, fmt.Errorf("decode checkpoint options of type %q: %w: %w", in.GetTypeUrl(), err, errdefs.ErrInvalidArgument)
	}
	// runc knows one name, and leaves that namespace empty in any case, as we do.
	for _, ns := range opts.GetEmptyNamespaces() {
		if ns != "network" {
			return nil, fmt.Errorf("checkpoint options: emptyNamespaces %q: only \"network\" can be left empty: %w", ns, errdefs.ErrInvalidArgument)
		}
	}
	return &opts, nil
}

// capture takes a checkpoint for the store.
func (s *Service) capture(ctx context.Context, r capture.Request) (checkpoint.Entry, error) {
	var e checkpoint.Entry
	t, init, err := s.get(r.ID)
	if err != nil {
		return e, err
	}
	err = t.Capture(ctx, func(ctx context.Context, wasPaused bool) (string, error) {
		e, err = init.Capture(ctx, start.Capture{Name: r.Name, Replace: r.Replace, Stop: r.Stop}, wasPaused)
		return e.Digest, err
	})
	return e, err
}

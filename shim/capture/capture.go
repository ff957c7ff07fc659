// Package capture is the operator's way to a running shim: one ttrpc method,
// beside containerd's task service on the same socket, that takes a checkpoint
// of a task and registers it.
//
// Request and answer are JSON inside a protobuf Any, which ttrpc can carry
// without generated code.
package capture

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/containerd-snap/snap/checkpoint"
)

const (
	service = "io.containerd.snap.v2.Capture"
	method  = "Capture"
	typeURL = "io.containerd.snap.v2/json"
)

// ErrLost is returned by Call when the shim ended before it answered.
var ErrLost = errors.New("the shim ended during the capture")

// Request asks for a checkpoint.
type Request struct {
	// ID is the task's.
	ID string `json:"id"`
	// Name is what the checkpoint is to be called; empty for none.
	Name string `json:"name,omitempty"`
	// Replace takes the name from the checkpoint that has it.
	Replace bool `json:"replace,omitempty"`
	// Stop ends the task when the checkpoint is registered.
	Stop bool `json:"stop,omitempty"`
}

// Handler takes a checkpoint. Its errors carry errdefs classes.
type Handler func(ctx context.Context, req Request) (checkpoint.Entry, error)

// Register offers h on a shim's server.
func Register(s *ttrpc.Server, h Handler) {
	s.RegisterService(service, &ttrpc.ServiceDesc{Methods: map[string]ttrpc.Method{
		method: func(ctx context.Context, unmarshal func(any) error) (any, error) {
			var in anypb.Any
			if err := unmarshal(&in); err != nil {
				return nil, err
			}
			var req Request
			if err := json.Unmarshal(in.GetValue(), &req); err != nil {
				return nil, fmt.Errorf("decode the request: %w: %w", err, errdefs.ErrInvalidArgument)
			}
			e, err := h(ctx, req)
			if err != nil {
				return nil, err
			}
			return encode(e)
		},
	}})
}

func encode(v any) (*anypb.Any, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return &anypb.Any{TypeUrl: typeURL, Value: data}, nil
}

// Call asks the shim at address, as a start's record gives it.
func Call(ctx context.Context, address string, req Request) (checkpoint.Entry, error) {
	var e checkpoint.Entry
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", strings.TrimPrefix(address, "unix://"))
	if err != nil {
		return e, fmt.Errorf("reach the shim of task %s: %w", req.ID, err)
	}
	client := ttrpc.NewClient(conn)
	defer client.Close()
	in, err := encode(req)
	if err != nil {
		return e, err
	}
	var out anypb.Any
	if err := client.Call(ctx, service, method, in, &out); err != nil {
		if ctx.Err() != nil {
			// ToNative knows the errors that come over the wire, not these.
			return e, fmt.Errorf("wait for the capture of task %s: %w", req.ID, ctx.Err())
		}
		if errors.Is(err, ttrpc.ErrClosed) {
			return e, fmt.Errorf("capture task %s: %w", req.ID, ErrLost)
		}
		return e, errgrpc.ToNative(err)
	}
	if err := json.Unmarshal(out.GetValue(), &e); err != nil {
		return e, fmt.Errorf("decode the shim's answer: %w", err)
	}
	return e, nil
}

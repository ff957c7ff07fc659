// Package parity runs each of its scenarios with the stock runc shim and with
// ours, on one node, and compares what a client sees: answers, the classes of
// errors, exit statuses, events, and what a program finds in its container.
//
// A difference is a fault of ours, unless differences.go declares it; a
// declared one must occur, and must be told in docs/differences.md.
package parity

import (
	"context"
	"testing"

	"github.com/containerd-snap/snap/test/harness"
)

// node has both runtimes.
var node *harness.Node

const busyboxImage = "localhost/snap/busybox:1"

func TestMain(m *testing.M) { harness.Main(m, harness.Suite{Name: "parity", SetUp: prepare}) }

func prepare(ctx context.Context, _ string) (func() error, error) {
	busybox, err := harness.Image("busybox")
	if err != nil {
		return nil, err
	}
	node, err = harness.Start(ctx, harness.Options{Stock: true, Images: []string{busybox}})
	if err != nil {
		return nil, err
	}
	return node.End, nil
}

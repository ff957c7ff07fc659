// Package integration runs the shim under a real containerd with a real CRIU.
//
// Most tests share one node, and keep out of each other's way by what they put
// into their containers' environment: it is part of the fingerprint, so that
// no test's checkpoint fits another's container. Tests that meddle with a
// node's programs or store have one of their own.
package integration

import (
	"context"
	"testing"

	"github.com/containerd-snap/snap/test/harness"
	"github.com/containerd-snap/snap/test/harness/run"
)

// shared is the node of tests that leave it as they found it.
var shared *harness.Node

// images are the archives that every node gets.
var images []string

func TestMain(m *testing.M) { harness.Main(m, harness.Suite{Name: "it", SetUp: prepare}) }

func prepare(ctx context.Context, dir string) (func() error, error) {
	busybox, err := harness.Image("busybox")
	if err != nil {
		return nil, err
	}
	probe, err := harness.ProgramImage(ctx, dir, run.ProbeImage, run.ProbeProgram, "./pi")
	if err != nil {
		return nil, err
	}
	images = []string{busybox, probe}
	if shared, err = harness.Start(ctx, harness.Options{Images: images}); err != nil {
		return nil, err
	}
	return shared.End, nil
}

// newNode starts a node for one test, with the images.
func newNode(t *testing.T, o harness.Options) *harness.Node {
	t.Helper()
	o.Images = images
	return run.Node(t, o)
}

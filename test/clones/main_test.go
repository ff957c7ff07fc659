// Package clones starts clones by way of everybody: containers made by a client, and
// checkpoints taken, named and explained by snapctl.
//
// The tests share one node, and keep out of each other's way as those of package
// integration do: the test's name is in its containers' environment.
package clones

import (
	"context"
	"testing"

	"github.com/containerd-snap/snap/test/harness"
	"github.com/containerd-snap/snap/test/harness/run"
)

// shared is the node of all tests.
var shared *harness.Node

func TestMain(m *testing.M) { harness.Main(m, harness.Suite{Name: "clones", SetUp: prepare}) }

func prepare(ctx context.Context, dir string) (func() error, error) {
	busybox, err := harness.Image("busybox")
	if err != nil {
		return nil, err
	}
	probe, err := harness.ProgramImage(ctx, dir, run.ProbeImage, run.ProbeProgram)
	if err != nil {
		return nil, err
	}
	scribe, err := harness.ProgramImage(ctx, dir, scribeImage, scribeProgram)
	if err != nil {
		return nil, err
	}
	if shared, err = harness.Start(ctx, harness.Options{Images: []string{busybox, probe, scribe}}); err != nil {
		return nil, err
	}
	return shared.End, nil
}

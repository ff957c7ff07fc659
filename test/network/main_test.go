// Package network starts clones in networks of their own, made in all the ways in which networks
// are made for containers, and looks at what captures and restores leave there.
//
// The tests have a network namespace of their own, in the place of a host's: what plugins
// and hooks make stays there.
package network

import (
	"context"
	"testing"

	"github.com/containerd-snap/snap/test/harness"
	"github.com/containerd-snap/snap/test/harness/run"
)

// shared is the node of all tests.
var shared *harness.Node

const (
	endpointsImage   = "localhost/snap/endpoints:1"
	endpointsProgram = "github.com/containerd-snap/snap/test/network/endpoints"
	redisImage       = "localhost/snap/redis:1"
)

func TestMain(m *testing.M) {
	harness.Main(m, harness.Suite{Name: "network", Network: true, SetUp: prepare})
}

func prepare(ctx context.Context, dir string) (func() error, error) {
	var archives []string
	for _, name := range []string{"busybox", "redis"} {
		archive, err := harness.Image(name)
		if err != nil {
			return nil, err
		}
		archives = append(archives, archive)
	}
	for name, program := range map[string]string{run.ProbeImage: run.ProbeProgram, endpointsImage: endpointsProgram} {
		archive, err := harness.ProgramImage(ctx, dir, name, program)
		if err != nil {
			return nil, err
		}
		archives = append(archives, archive)
	}
	if err := plugins(dir); err != nil {
		return nil, err
	}
	var err error
	if shared, err = harness.Start(ctx, harness.Options{Images: archives}); err != nil {
		return nil, err
	}
	return shared.End, nil
}

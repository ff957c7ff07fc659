// Package integration runs the shim under a real containerd with a real CRIU.
//
// Most tests share one node, and keep out of each other's way by what they put
// into their containers' environment: it is part of the fingerprint, so that
// no test's checkpoint fits another's container. Tests that meddle with a
// node's programs or store have one of their own.
package integration

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd-snap/snap/test/harness"
)

// shared is the node of tests that leave it as they found it.
var shared *harness.Node

// images are the archives that every node gets.
var images []string

// The images' names.
const (
	busyboxImage = "localhost/snap/busybox:1"
	probeImage   = "localhost/snap/probe:1"
)

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "integration:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, retErr error) {
	if err := harness.EnterPrivate(); err != nil {
		return 1, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "snap-it-")
	if err != nil {
		return 1, err
	}
	defer func() { retErr = errors.Join(retErr, os.RemoveAll(dir)) }()
	if images, err = makeImages(ctx, dir); err != nil {
		return 1, err
	}
	if shared, err = startNode(ctx, harness.Options{}); err != nil {
		return 1, err
	}
	code = m.Run()
	return code, stopNode(shared)
}

// makeImages builds the probe and pi, and puts them into an image, over busybox.
func makeImages(ctx context.Context, dir string) ([]string, error) {
	busybox, err := harness.Image("busybox")
	if err != nil {
		return nil, err
	}
	maker, err := harness.Tool("images")
	if err != nil {
		return nil, err
	}
	layer, archive := filepath.Join(dir, "layer"), filepath.Join(dir, "probe.tar")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(layer, "bin")+"/", "./probe", "./pi")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	image := exec.CommandContext(ctx, maker, "-o", archive, "-name", probeImage, "-from", busybox, "-add", layer, "/bin/probe")
	for _, cmd := range []*exec.Cmd{build, image} {
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("make the probe's image: %w: %s", err, out)
		}
	}
	return []string{busybox, archive}, nil
}

// startNode starts a node that has the images.
func startNode(ctx context.Context, o harness.Options) (*harness.Node, error) {
	n, err := harness.Start(ctx, o)
	if err != nil {
		return nil, err
	}
	for _, archive := range images {
		if err := n.Import(ctx, archive); err != nil {
			return nil, errors.Join(err, stopNode(n))
		}
	}
	return n, nil
}

// stopNode stops a node. Something left over is an error.
func stopNode(n *harness.Node) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	left, err := n.Stop(ctx)
	if !left.Empty() {
		err = errors.Join(err, fmt.Errorf("something was left on the node when its containers were deleted:\n%s", left))
	}
	return err
}

// newNode starts a node for one test.
func newNode(t *testing.T, o harness.Options) *harness.Node {
	t.Helper()
	n, err := startNode(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stopNode(n); err != nil {
			t.Error(err)
		}
	})
	return n
}

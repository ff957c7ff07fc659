// Package parity runs each of its scenarios with the stock runc shim and with
// ours, on one node, and compares what a client sees: answers, the classes of
// errors, exit statuses, events, and what a program finds in its container.
//
// A difference is a fault of ours, unless differences.go declares it; a
// declared one must occur, and must be told in docs/differences.md.
package parity

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/containerd-snap/snap/test/harness"
)

// node has both runtimes.
var node *harness.Node

const busyboxImage = "localhost/snap/busybox:1"

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "parity:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, retErr error) {
	if err := harness.EnterPrivate(); err != nil {
		return 1, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	busybox, err := harness.Image("busybox")
	if err != nil {
		return 1, err
	}
	if node, err = harness.Start(ctx, harness.Options{Stock: true}); err != nil {
		return 1, err
	}
	defer func() { retErr = errors.Join(retErr, stop()) }()
	if err := node.Import(ctx, busybox); err != nil {
		return 1, err
	}
	// Containers with a user namespace must reach their root file system.
	if err := os.Chmod(node.Dir, 0o711); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// stop stops the node. Something left over is an error.
func stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	left, err := node.Stop(ctx)
	if !left.Empty() {
		err = errors.Join(err, fmt.Errorf("something was left on the node when its containers were deleted:\n%s", left))
	}
	return err
}

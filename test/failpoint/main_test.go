// Package failpoint makes the shim fail before, within and after each of its methods: the
// task's state stays what it was or becomes what it should, a client can go on, and
// containerd's clean-up leaves nothing.
package failpoint

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

const (
	// runtime is the name of the shim that fails.
	runtime      = "io.containerd.snapfail.v2"
	busyboxImage = "localhost/snap/busybox:1"
)

// busybox is the image's archive.
var busybox string

// program is the shim that fails.
var program string

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "failpoint:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, retErr error) {
	if err := harness.EnterPrivate(); err != nil {
		return 1, err
	}
	var err error
	if busybox, err = harness.Image("busybox"); err != nil {
		return 1, err
	}
	dir, err := os.MkdirTemp("", "snap-fail-")
	if err != nil {
		return 1, err
	}
	defer func() { retErr = errors.Join(retErr, os.RemoveAll(dir)) }()
	program = filepath.Join(dir, "containerd-shim-snapfail-v2")
	out, err := exec.Command("go", "build", "-tags", "seccomp,no_grpc", "-o", program, "./shim").CombinedOutput()
	if err != nil {
		return 1, fmt.Errorf("build the failing shim: %w: %s", err, out)
	}
	return m.Run(), nil
}

// newNode starts a node that has the failing shim.
func newNode(t *testing.T) *harness.Node {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	n, err := harness.Start(ctx, harness.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		left, err := n.Stop(ctx)
		if err != nil || !left.Empty() {
			t.Errorf("%v; something is left:\n%s", err, left)
		}
	})
	if err := os.Symlink(program, filepath.Join(n.Bin, filepath.Base(program))); err != nil {
		t.Fatal(err)
	}
	if err := n.Import(ctx, busybox); err != nil {
		t.Fatal(err)
	}
	return n
}

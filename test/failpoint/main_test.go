// Package failpoint makes the shim fail before, within and after each of its methods: the
// task's state stays what it was or becomes what it should, a client can go on, and
// containerd's clean-up leaves nothing.
package failpoint

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/containerd-snap/snap/test/harness"
	"github.com/containerd-snap/snap/test/harness/run"
)

const (
	// runtime is the name of the shim that fails.
	runtime      = "io.containerd.snapfail.v2"
	busyboxImage = run.BusyboxImage
)

// busybox is the image's archive.
var busybox string

// program is the shim that fails.
var program string

func TestMain(m *testing.M) { harness.Main(m, harness.Suite{Name: "fail", SetUp: prepare}) }

func prepare(ctx context.Context, dir string) (_ func() error, err error) {
	if busybox, err = harness.Image("busybox"); err != nil {
		return nil, err
	}
	program = filepath.Join(dir, "containerd-shim-snapfail-v2")
	out, err := exec.CommandContext(ctx, "go", "build", "-tags", "seccomp,no_grpc", "-o", program, "./shim").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("build the failing shim: %w: %s", err, out)
	}
	return nil, nil //nolint:nilnil // nothing to undo
}

// newNode starts a node that has the failing shim.
func newNode(t *testing.T) *harness.Node {
	t.Helper()
	n := run.Node(t, harness.Options{Images: []string{busybox}})
	if err := os.Symlink(program, filepath.Join(n.Bin, filepath.Base(program))); err != nil {
		t.Fatal(err)
	}
	return n
}

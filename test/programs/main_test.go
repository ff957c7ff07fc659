// Package programs captures servers as people run them, with their real clients, and looks
// at what becomes of their data: in the captured program, in three clones that start at
// once, and in the clone of a clone. docs/clones.md has the table of what is checked.
//
// The tests share one node. Each has a network of its own, and an image.
package programs

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/containerd-snap/snap/test/harness"
	"github.com/containerd-snap/snap/test/harness/run"
)

var (
	// shared is the node of all tests.
	shared *harness.Node
	// app is a directory with what the programs are made of: containers have it at /app.
	app string
)

func TestMain(m *testing.M) {
	harness.Main(m, harness.Suite{Name: "programs", SetUp: prepare})
}

func prepare(ctx context.Context, dir string) (tearDown func() error, err error) {
	// Others than root read it.
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // nothing in it is a secret
		return nil, err
	}
	app = filepath.Join(dir, "app")
	if err := os.CopyFS(app, os.DirFS("testdata")); err != nil {
		return nil, err
	}
	server := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", filepath.Join(app, "server"), "./server")
	server.Env = append(os.Environ(), "CGO_ENABLED=0")
	locks := exec.CommandContext(ctx, "gcc", "-O2", "-Wall", "-Werror", "-static", "-pthread", "-o", filepath.Join(app, "locks"), "testdata/locks.c")
	for _, cmd := range []*exec.Cmd{server, locks} {
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build a program: %w: %s", err, out)
		}
	}
	if shared, err = harness.Start(ctx, harness.Options{}); err != nil {
		return nil, err
	}
	return shared.End, nil
}

// want wants a program in an image that the set-up made, which it loads.
func want(t *testing.T, image string, opts []oci.SpecOpts, args ...string) run.Want {
	t.Helper()
	archive, err := harness.Image(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := shared.Import(t.Context(), archive); err != nil {
		t.Fatal(err)
	}
	mounted := oci.WithMounts([]specs.Mount{{Destination: "/app", Type: "bind", Source: app, Options: []string{"rbind", "ro"}}})
	return run.Want{Image: "localhost/snap/" + image + ":1", Args: args, Opts: append(opts, mounted)}
}

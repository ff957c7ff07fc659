// Package examples runs the scripts of the examples directory on a node of ours.
package examples

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd-snap/snap/test/harness"
)

// deadline bounds one example.
const deadline = 3 * time.Minute

// images are those that the examples run.
var images = []string{"busybox", "python", "redis"}

func TestMain(m *testing.M) {
	flag.Parse()
	if err := harness.EnterPrivate(); err != nil {
		fmt.Fprintln(os.Stderr, "examples:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// TestExamples runs each example as its README says, and looks at what it leaves.
func TestExamples(t *testing.T) {
	scripts, err := filepath.Glob("../../examples/*/run")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	n := startNode(t)
	for _, script := range scripts {
		dir := filepath.Dir(script)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			if _, err := os.Stat(filepath.Join(dir, "README.md")); err != nil {
				t.Error(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), deadline)
			defer cancel()
			path, err := filepath.Abs(script)
			if err != nil {
				t.Fatal(err)
			}
			out, err := n.Script(ctx, path)
			t.Logf("%s%s", out.Stdout, out.Stderr)
			if err != nil {
				t.Error(err)
			}
			left, err := n.Leftovers()
			if err != nil || !left.Empty() {
				t.Errorf("left on the node: %s (%v)", left, err)
			}
		})
	}
}

func startNode(t *testing.T) *harness.Node {
	t.Helper()
	n, err := harness.Start(t.Context(), harness.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		left, err := n.Stop(ctx)
		if !left.Empty() {
			err = errors.Join(err, fmt.Errorf("left on the node:\n%s", left))
		}
		if err != nil {
			t.Error(err)
		}
	})
	for _, name := range images {
		archive, err := harness.Image(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := n.Import(t.Context(), archive); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

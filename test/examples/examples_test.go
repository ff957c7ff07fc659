// Package examples runs the scripts of the examples directory on a node of ours.
package examples

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd-snap/snap/test/harness"
	"github.com/containerd-snap/snap/test/harness/run"
)

// deadline bounds one example.
const deadline = 3 * time.Minute

func TestMain(m *testing.M) { harness.Main(m, harness.Suite{Name: "examples"}) }

// TestExamples runs each example as its README says, and looks at what it leaves.
func TestExamples(t *testing.T) {
	scripts, err := filepath.Glob("../../examples/*/run")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	n := startNode(t, "busybox", "python", "rails", "redis")
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
			out, err := n.Script(ctx, path, settings()...).CombinedOutput()
			t.Logf("%s", out)
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

// settings are those of the examples that are passed on, as to `make test-examples`.
func settings() (env []string) {
	if clones, ok := os.LookupEnv("CLONES"); ok {
		env = append(env, "CLONES="+clones)
	}
	return env
}

// startNode starts one with these images.
func startNode(t *testing.T, images ...string) *harness.Node {
	t.Helper()
	var archives []string
	for _, name := range images {
		archive, err := harness.Image(name)
		if err != nil {
			t.Fatal(err)
		}
		archives = append(archives, archive)
	}
	return run.Node(t, harness.Options{Images: archives})
}

package integration

import (
	"strings"
	"testing"

	"github.com/containerd-snap/snap/test/harness"
)

// TestSnapctl does with the operator's command what it is for, in the order in
// which an operator does.
func TestSnapctl(t *testing.T) {
	t.Parallel()
	n := newNode(t, harness.Options{})
	a := start(t, n, probeOf())
	before := a.Probe()
	run := func(wants ...string) func(args ...string) {
		return func(args ...string) {
			t.Helper()
			out, err := n.Snapctl(testContext(t), args...)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range wants {
				if !strings.Contains(out.Stdout, want) {
					t.Errorf("snapctl %q lacks %q: %s", args, want, out.Stdout)
				}
			}
		}
	}
	run()("create", a.ID(), "--name", "ready")
	a.GoesOn(before)
	run("ready", "probe")("ls")
	run("ready", "sha256:", a.ID())("inspect", "ready")
	e, err := openStore(t, n).Resolve("ready")
	if err != nil {
		t.Fatal(err)
	}
	b := start(t, n, probeOf())
	b.MustRestored(e)
	b.GoesOn(before)
	run("restore", "ready")("explain", b.ID())
	run("boot", "no registered checkpoint")("explain", a.ID())
	run()("create", a.ID(), "--name", "ready", "--replace", "--stop")
	if got := a.Wait(); got != 137 {
		t.Errorf("exit status after --stop: %d", got)
	}
	run()("rm", e.Digest)
	for _, args := range [][]string{
		{"inspect", e.Digest}, {"create", "nobody"}, {"create", b.ID(), "--name", "ready"}, {"create", b.ID(), "--name", "Not Valid"},
	} {
		if out, err := n.Snapctl(testContext(t), args...); err == nil || out.Stderr == "" {
			t.Errorf("snapctl %q: %v, printed %q", args, err, out.Stderr)
		}
	}
	b.GoesOn(before)
	if _, err := n.Snapctl(testContext(t), "rm", "ready"); err != nil {
		t.Error(err)
	}
	storeIsEmpty(t, n)
}

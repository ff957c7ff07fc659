package run

import (
	"testing"

	"github.com/containerd-snap/snap/test/harness"
)

// The images of most tests.
const (
	// BusyboxImage is what make setup made; see harness.Image.
	BusyboxImage = "localhost/snap/busybox:1"
	// ProbeImage is that of Probe; see harness.ProgramImage.
	ProbeImage = "localhost/snap/probe:1"
	// ProbeProgram is the package of its program.
	ProbeProgram = "github.com/containerd-snap/snap/test/integration/probe"
)

// Node starts a node for one test. It is stopped when the test ends, and nothing of its
// containers may be left then.
func Node(t *testing.T, o harness.Options) *harness.Node {
	t.Helper()
	n, err := harness.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.End(); err != nil {
			t.Error(err)
		}
	})
	return n
}

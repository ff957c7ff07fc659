package clones

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"

	"github.com/containerd-snap/snap/shim/capture"
	"github.com/containerd-snap/snap/test/harness/run"
)

// TestTerminal: the terminal of a clone is its own. It has the size that the new
// container's spec says and later the one that it is given, the program hears of both, and
// who went away from it can come back.
func TestTerminal(t *testing.T) {
	t.Parallel()
	terminal := func(width, height int) run.Want {
		w := scribeOf(oci.WithTTYSize(width, height))
		w.Args, w.Terminal = []string{"/bin/scribe", "winch"}, true
		return w
	}
	resize := func(s scribe, width, height uint32) {
		t.Helper()
		if err := s.Task.Resize(run.Context(t), width, height); err != nil {
			t.Fatal(err)
		}
		s.Out.WaitFor(t, fmt.Sprintf("SIGWINCH %dx%d", width, height))
	}
	original := scribe{run.Start(t, shared, terminal(80, 24))}
	original.Out.WaitFor(t, "ready")
	original.says("size", "80x24")
	resize(original, 100, 30)
	e := original.MustCapture(capture.Request{})

	direct, creator := detachable(t, true)
	clone := scribe{startInto(t, terminal(90, 25), creator)}
	clone.Stdin = direct().Stdin
	go func() { _, _ = io.Copy(clone.Out, direct().Stdout) }()
	clone.MustRestored(e)
	clone.Out.WaitFor(t, "SIGWINCH 90x25")
	clone.says("size", "90x25")
	resize(clone, 132, 43)
	clone.says("size", "132x43")
	original.says("size", "100x30")

	// The client goes, and another one comes.
	direct().Cancel()
	if err := errors.Join(direct().Stdin.Close(), direct().Stdout.Close()); err != nil {
		t.Fatal(err)
	}
	out := &run.Output{}
	stdin, keys := io.Pipe()
	attach := cio.NewAttach(cio.WithStreams(stdin, out, nil), cio.WithTerminal)
	task, err := clone.Container.Container.Task(run.Context(t), attach)
	if err != nil {
		t.Fatal(err)
	}
	clone.Task, clone.Out, clone.Stdin = task, out, keys
	clone.says("size", "132x43")
	resize(clone, 60, 20)

	// A clone's terminal can be captured in turn.
	again := clone.MustCapture(capture.Request{Stop: true})
	clone.Wait()
	second := scribe{run.Start(t, shared, terminal(70, 21))}
	second.MustRestored(again)
	second.says("size", "70x21")
}

package report

import (
	"fmt"
	"io"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/human"
)

// Captured writes what a capture came to; stopped says that it ended the container.
func Captured(w io.Writer, e checkpoint.Entry, stopped bool) error {
	c := e.Checkpoint
	after := "it goes on running"
	if stopped {
		after = "it was stopped"
	}
	s := sections{out: w}
	s.add(fmt.Sprintf("captured %s; %s", human.Text(c.Source.Container), after),
		pair("name", e.Name),
		pair("digest", e.Digest),
		pair("size", human.Bytes(c.Bytes())),
		pair("pause", fmt.Sprintf("%s (dump %s, writable layer %s)", human.Milliseconds(c.Timing.PauseMS), human.Milliseconds(c.Timing.DumpMS), human.Milliseconds(c.Timing.DiffMS))),
	)
	return s.err
}

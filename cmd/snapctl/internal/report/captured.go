package report

import (
	"fmt"
	"io"
	"time"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/human"
)

// Capture is a registered checkpoint, by what its container's operator asks for.
type Capture struct {
	Digest string `json:"digest"`
	Name   string `json:"name,omitempty"`
	// Kind is that of the checkpoint: a template, or a resume point.
	Kind      checkpoint.Kind `json:"kind"`
	CreatedAt time.Time       `json:"createdAt"`
	Bytes     int64           `json:"bytes"`
	// Status is that of `snapctl ls`, Why its reason unless it is ready.
	Status string `json:"status"`
	Why    string `json:"why,omitempty"`
}

func (r *Report) capturesOf(e checkpoint.Entry) Capture {
	status, why := Status(e, r.Host)
	kind := e.Checkpoint.Kind
	if kind == "" {
		kind = checkpoint.Template
	}
	return Capture{
		Digest: e.Digest, Name: e.Name, Kind: kind, CreatedAt: e.Checkpoint.CreatedAt, Bytes: e.Checkpoint.Bytes(), Status: status, Why: why,
	}
}

func captureRows(r *Report, all []Capture) []row {
	rows := make([]row, 0, len(all))
	for _, c := range all {
		status := c.Status
		if c.Why != "" {
			status += ": " + c.Why
		}
		rows = append(rows, row{human.Text(ref(c.Name, c.Digest)), string(c.Kind), r.ago(c.CreatedAt), human.Bytes(c.Bytes), human.Text(status)})
	}
	return rows
}

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
		pair("size", size(&c)),
		pair("pause", fmt.Sprintf("%s (dump %s, writable layer %s)", human.Milliseconds(c.Timing.PauseMS), human.Milliseconds(c.Timing.DumpMS), human.Milliseconds(c.Timing.DiffMS))),
	)
	return s.err
}

// size is the whole size, and what of it another checkpoint has as well.
func size(c *checkpoint.Checkpoint) string {
	whole := human.Bytes(c.Bytes())
	if shared := c.SharedBytes(); shared > 0 {
		return fmt.Sprintf("%s, of which %s are shared with the checkpoint that it was restored from", whole, human.Bytes(shared))
	}
	return whole
}

// Imported writes what was registered from a stream.
func (r *Report) Imported(e checkpoint.Entry) error {
	c := e.Checkpoint
	status, why := Status(e, r.Host)
	if why != "" {
		status += ": " + why
	}
	s := sections{out: r.Out}
	s.add(fmt.Sprintf("imported a checkpoint of %s", human.Text(c.Source.Container)),
		pair("name", e.Name),
		pair("digest", e.Digest),
		pair("size", human.Bytes(c.Bytes())),
		pair("status", human.Text(status)),
	)
	return s.err
}

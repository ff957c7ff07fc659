package report

import (
	"io"
	"strconv"
	"strings"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/match"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/human"
)

// The widths of columns that hold text of any length, in characters.
const (
	imageWidth   = 40
	commandWidth = 28
)

// List writes a table of all registered checkpoints, newest first, damaged ones last.
func (r *Report) List() error {
	entries, err := r.Store.List()
	if err != nil {
		return err
	}
	damaged, err := r.Store.Damaged()
	if err != nil {
		return err
	}
	rows := []row{{"NAME", "DIGEST", "KIND", "IMAGE", "COMMAND", "SIZE", "AGE", "RESTORES", "STATUS"}}
	for _, e := range entries {
		c := e.Checkpoint
		status, _ := Status(e, r.Host)
		if e.State.Pinned {
			status += ", pinned"
		}
		rows = append(rows, row{
			dash(e.Name),
			shortDigest(e.Digest),
			string(c.Kind),
			dash(human.Short(c.Source.Image, imageWidth)),
			dash(human.Short(c.Source.Command, commandWidth)),
			human.Bytes(c.Bytes()),
			human.Age(r.Now.Sub(c.CreatedAt)),
			strconv.Itoa(e.State.Restores),
			status,
		})
	}
	for _, d := range damaged {
		rows = append(rows, row{"-", shortDigest(d.Digest), "-", "-", "-", "-", "-", "-", Damaged})
	}
	return columns(r.Out, 0, "", rows)
}

// ListDigests writes the full digest of each registered checkpoint, damaged or not, on
// a line.
func (r *Report) ListDigests() error {
	entries, err := r.Store.List()
	if err != nil {
		return err
	}
	damaged, err := r.Store.Damaged()
	if err != nil {
		return err
	}
	digests := make([]string, 0, len(entries)+len(damaged))
	for _, e := range entries {
		digests = append(digests, e.Digest+"\n")
	}
	for _, d := range damaged {
		digests = append(digests, d.Digest+"\n")
	}
	_, err = io.WriteString(r.Out, strings.Join(digests, ""))
	return err
}

// ListJSON writes an array of checkpoint.Entry, newest first. Of damaged checkpoints
// there is nothing to write; it returns their number.
func (r *Report) ListJSON() (damaged int, err error) {
	entries, err := r.Store.List()
	if err != nil {
		return 0, err
	}
	left, err := r.Store.Damaged()
	if err != nil {
		return 0, err
	}
	if entries == nil {
		entries = []checkpoint.Entry{} // "[]", not "null"
	}
	return len(left), JSON(r.Out, entries)
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// Refs returns a reference to each checkpoint: its name or, without one, the
// beginning of its digest.
func Refs(entries []checkpoint.Entry) []string {
	refs := make([]string, 0, len(entries))
	for _, e := range entries {
		refs = append(refs, match.Ref(e))
	}
	return refs
}

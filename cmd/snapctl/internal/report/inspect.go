package report

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/human"
)

// lineWidth is where long lists are continued on the next line, in characters.
const lineWidth = 72

// InspectJSON writes the checkpoint.Entry that ref names.
func (r *Report) InspectJSON(ref string) error {
	e, err := r.Store.Resolve(ref)
	if err != nil {
		return err
	}
	return JSON(r.Out, e)
}

// Inspect writes all that is known of the checkpoint that ref names.
func (r *Report) Inspect(ref string) error {
	e, err := r.Store.Resolve(ref)
	if err != nil {
		return err
	}
	c := e.Checkpoint
	s := sections{out: r.Out}
	kind := string(c.Kind)
	if c.Owner != "" {
		kind += " of " + c.Owner
	}
	s.add("Checkpoint",
		pair("name", e.Name),
		pair("digest", e.Digest),
		pair("kind", kind),
		pair("directory", e.Dir),
		pair("created", r.ago(c.CreatedAt)),
		pair("size", fmt.Sprintf("%s (images %s, writable layer %s)", human.Bytes(c.Bytes()), human.Bytes(c.ImagesBytes()), human.Bytes(c.Diff.Bytes))),
	)
	s.add("State", r.state(e)...)
	s.add("Source",
		pair("container", c.Source.Container),
		pair("namespace", c.Source.Namespace),
		pair("image", c.Source.Image),
		pair("image digest", c.Source.ImageDigest),
		pair("command", c.Source.Command),
		pair("processes", strconv.Itoa(c.Source.Processes)),
	)
	s.add("Capture",
		pair("pause", human.Milliseconds(c.Timing.PauseMS)),
		pair("dump", human.Milliseconds(c.Timing.DumpMS)),
		pair("writable layer", human.Milliseconds(c.Timing.DiffMS)),
	)
	s.add("Host (what a node must offer)", hostRows(c.Host)...)
	s.add("Fingerprint (what a container must have in common with it)", fingerprintRows(c.Fingerprint)...)
	s.add("Writable layer",
		pair("files", strconv.Itoa(c.Diff.Files)),
		pair("size", human.Bytes(c.Diff.Bytes)),
		pair("format", c.Diff.Format),
		pair("sha256", c.Diff.SHA256),
	)
	s.add("Memory", memoryForm(&c)...)
	s.add("TCP connections", connectionRows(c.Connections)...)
	s.add("Files of mounts (which a container's must have, too)", heldRows(c.Held)...)
	s.add(fmt.Sprintf("Images (%s)", human.Count(len(c.Files), "file")), fileRows(c.Files)...)
	return s.err
}

// memoryForm says in which form the images hold the memory; nothing of a checkpoint that
// was taken before there were two.
func memoryForm(c *checkpoint.Checkpoint) []row {
	m := c.Memory
	if m.Form == "" {
		return nil
	}
	rows := []row{pair("form", string(m.Form)), pair("reason", m.Reason)}
	if m.Base != "" {
		rows = append(rows, pair("base", m.Base), pair("shared with it", human.Bytes(c.SharedBytes())))
	}
	return rows
}

// connectionRows has those that are part of the checkpoint, the program's end first.
func connectionRows(all []checkpoint.Connection) []row {
	rows := make([]row, 0, len(all))
	for _, c := range all {
		rows = append(rows, pair(c.Local.String(), c.Remote.String()))
	}
	return rows
}

// heldRows has what the program had in use of volumes and bind mounts.
func heldRows(all []checkpoint.HeldFile) []row {
	rows := make([]row, 0, len(all))
	for _, f := range all {
		size := "any size"
		if f.Size >= 0 {
			size = human.Count(int(f.Size), "byte")
		}
		rows = append(rows, pair(f.Shown(), fmt.Sprintf("mode %04o, %s", f.Mode&0o7777, size)))
	}
	return rows
}

func (r *Report) state(e checkpoint.Entry) []row {
	status, why := Status(e, r.Host)
	if why != "" {
		status += ": " + why
	}
	used := "never"
	if !e.State.LastUsed.IsZero() {
		used = r.ago(e.State.LastUsed)
	}
	rows := []row{
		pair("status", status),
		pair("pinned", yesNo(e.State.Pinned)),
		pair("restores", strconv.Itoa(e.State.Restores)),
		pair("last used", used),
		pair("failures", strconv.Itoa(e.State.Failures)),
	}
	if e.State.LastFailure != "" {
		rows = append(rows, pair("last failure", e.State.LastFailure))
	}
	return rows
}

func hostRows(h checkpoint.HostFacts) []row {
	rows := []row{
		pair("architecture", h.Arch),
		pair("kernel", h.Kernel+" or newer"),
		pair("CRIU", checkpoint.FormatCRIU(h.CRIU)+" or newer"),
		pair("cgroups", h.Cgroup),
	}
	for i, line := range wrap(h.CPUFeatures, lineWidth) {
		key := ""
		if i == 0 {
			key = "CPU features"
		}
		rows = append(rows, pair(key, line))
	}
	return rows
}

func fingerprintRows(f checkpoint.Fingerprint) []row {
	if len(f) == 0 {
		return []row{{"none: it is restored only where it is named"}}
	}
	rows := []row{pair("key", f.Key())}
	for _, name := range slices.Sorted(maps.Keys(f)) {
		rows = append(rows, pair(name, f[name]))
	}
	return rows
}

func fileRows(files []checkpoint.File) []row {
	rows := make([]row, 0, len(files))
	for _, f := range files {
		kind := "metadata"
		if f.Pages {
			kind = "pages"
		}
		rows = append(rows, row{human.Text(f.Path), human.Bytes(f.Size), kind, f.SHA256})
	}
	return rows
}

// wrap joins words with spaces to lines of at most width characters, or one word.
func wrap(words []string, width int) []string {
	var lines []string
	var line strings.Builder
	for _, w := range words {
		if line.Len() > 0 && line.Len()+1+len(w) > width {
			lines = append(lines, line.String())
			line.Reset()
		}
		if line.Len() > 0 {
			line.WriteByte(' ')
		}
		line.WriteString(w)
	}
	if line.Len() > 0 {
		lines = append(lines, line.String())
	}
	return lines
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// Package report writes what the store knows for people, as tables and sections,
// and for programs, as JSON.
//
// JSON is the domain's types as they are; see package checkpoint. What is written
// for people may change. Text that comes from containers and images is written
// without control characters. The package has no state and no locks.
package report

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/store"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/human"
)

// Report writes about one store.
type Report struct {
	Store *store.Store
	Out   io.Writer
	// Now is the time that ages are counted from.
	Now time.Time
	// Host is what this node offers; nil if that is not known.
	Host *checkpoint.HostFacts
}

// JSON writes v, indented.
func JSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// keyWidth aligns the values of sections with each other.
const keyWidth = 16

// sections writes titled lists of keys and values.
type sections struct {
	out io.Writer
	err error
	// begun says that something stands above.
	begun bool
}

// row is a line of a section: a key and its value or, in a section that is a table,
// more cells than these.
type row []string

// pair is a row of a key and its value; a value that is empty is written as "-".
func pair(key, value string) row {
	if value == "" {
		value = "-"
	}
	return row{human.Text(key), human.Text(value)}
}

// add writes a section; one without rows is left out. Cells must hold no tabs or
// line ends.
func (s *sections) add(title string, rows ...row) {
	if s.err != nil || len(rows) == 0 {
		return
	}
	if s.begun {
		title = "\n" + title
	}
	s.begun = true
	if _, s.err = fmt.Fprintln(s.out, title); s.err != nil {
		return
	}
	width := keyWidth
	if len(rows[0]) > 2 {
		width = 0
	}
	s.err = columns(s.out, width, "  ", rows)
}

// columns writes rows so that their cells stand below each other.
func columns(out io.Writer, width int, indent string, rows []row) error {
	w := tabwriter.NewWriter(out, width, 0, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintln(w, indent+strings.Join(r, "\t"))
	}
	return w.Flush()
}

// ago writes a moment and its age.
func (r *Report) ago(t time.Time) string {
	return fmt.Sprintf("%s (%s ago)", human.Time(t), human.Age(r.Now.Sub(t)))
}

package report

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/match"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/human"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/record"
)

// maxMisses is the number of near misses that are named.
const maxMisses = 5

// Explanation is what is known of a container's last start.
type Explanation struct {
	Start checkpoint.Start `json:"start"`
	// NearMisses are the registered checkpoints that come nearest to the
	// container's fingerprint without having it; empty if that was not computed.
	NearMisses []match.Miss `json:"nearMisses"`
	// same are those that have the fingerprint.
	same []checkpoint.Entry
}

// Explain returns what is known of a container's last start. The error wraps
// checkpoint.ErrNotFound if that is not recorded.
func (r *Report) Explain(namespace, container string) (Explanation, error) {
	start, err := record.Find(r.Store, namespace, container)
	if err != nil {
		return Explanation{}, err
	}
	x := Explanation{Start: start, NearMisses: []match.Miss{}}
	if len(start.Fingerprint) == 0 {
		return x, nil
	}
	all, err := r.Store.List()
	if err != nil {
		return Explanation{}, err
	}
	x.NearMisses = match.Nearest(start.Fingerprint, all, maxMisses)
	for _, e := range all {
		if len(start.Fingerprint.Diff(e.Checkpoint.Fingerprint)) == 0 {
			x.same = append(x.same, e)
		}
	}
	return x, nil
}

// Write writes the explanation for people.
func (x Explanation) Write(r *Report) error {
	s := sections{out: r.Out}
	s.add("Start", x.startRows(r)...)
	s.add("Phases", x.phaseRows()...)
	s.add("Considered", x.verdictRows()...)
	if x.Start.Outcome != checkpoint.Restore {
		s.add("Since then", x.sinceRows(r)...)
		s.add("Near misses", x.missRows()...)
	}
	return s.err
}

func (x Explanation) startRows(r *Report) []row {
	st := x.Start
	decision := string(st.Decision.Action)
	if st.Decision.Digest != "" {
		decision += " from " + ref(st.Decision.Name, st.Decision.Digest)
	}
	switch {
	case st.Decision.Demanded && st.Decision.Action == checkpoint.Restore:
		decision += ", as was asked for"
	case st.Decision.Demanded:
		decision += ", though a restore was asked for"
	}
	rows := []row{
		pair("container", st.Container),
		pair("namespace", st.Namespace),
		pair("started", r.ago(st.At)),
		pair("decision", decision),
		pair("reason", st.Decision.Reason),
	}
	switch {
	case st.Error != "":
		rows = append(rows, pair("outcome", "failed: "+st.Error))
	case st.Fallback != "":
		rows = append(rows, pair("outcome", fmt.Sprintf("%s, because the restore failed: %s", st.Outcome, st.Fallback)))
	default:
		rows = append(rows, pair("outcome", string(st.Outcome)))
	}
	if st.PID != 0 {
		rows = append(rows, pair("process", fmt.Sprintf("%d (shim %d)", st.PID, st.ShimPID)))
	}
	return append(rows, pair("bundle", st.Bundle))
}

func (x Explanation) phaseRows() []row {
	if len(x.Start.Phases) == 0 {
		return nil
	}
	width, total := 0, 0.0
	times := make([]string, 0, len(x.Start.Phases)+1)
	for _, p := range x.Start.Phases {
		total += p.MS
		times = append(times, strconv.FormatFloat(p.MS, 'f', 1, 64))
	}
	times = append(times, strconv.FormatFloat(total, 'f', 1, 64))
	for _, t := range times {
		width = max(width, len(t))
	}
	rows := make([]row, 0, len(times))
	for i, t := range times {
		name := "total"
		if i < len(x.Start.Phases) {
			name = x.Start.Phases[i].Name
		}
		rows = append(rows, row{human.Text(name), fmt.Sprintf("%*s ms", width, t)})
	}
	return rows
}

func (x Explanation) verdictRows() []row {
	rows := make([]row, 0, len(x.Start.Decision.Verdicts))
	for _, v := range x.Start.Decision.Verdicts {
		verdict := "fits"
		if !v.Fits {
			verdict = "does not fit: " + v.Reason
		}
		rows = append(rows, pair(ref(v.Name, v.Digest), verdict))
	}
	return rows
}

// sinceRows names checkpoints with the container's fingerprint that the
// decision did not know.
func (x Explanation) sinceRows(r *Report) []row {
	known := map[string]bool{}
	for _, v := range x.Start.Decision.Verdicts {
		known[v.Digest] = true
	}
	var rows []row
	for _, e := range x.same {
		if known[e.Digest] {
			continue
		}
		status, why := Status(e, r.Host)
		if why != "" {
			status += ": " + why
		}
		rows = append(rows, pair(ref(e.Name, e.Digest), "was registered and has the same fingerprint; "+status))
	}
	return rows
}

func (x Explanation) missRows() []row {
	if len(x.Start.Fingerprint) == 0 {
		return []row{{"not known: the start ended or was decided before the container's fingerprint was needed"}}
	}
	rows := make([]row, 0, len(x.NearMisses))
	for _, m := range x.NearMisses {
		rows = append(rows, pair(ref(m.Name, m.Digest), "no restore: "+strings.Join(m.Differs, ", ")))
	}
	return rows
}

// ref names a checkpoint by name and digest.
func ref(name, digest string) string {
	if name == "" {
		return shortDigest(digest)
	}
	return fmt.Sprintf("%s (%s)", name, shortDigest(digest))
}

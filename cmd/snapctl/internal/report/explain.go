package report

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/criu"
	"github.com/containerd-snap/snap/checkpoint/match"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/human"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/record"
	"github.com/containerd-snap/snap/oci/spec"
)

// maxMisses is the number of near misses that are named.
const maxMisses = 5

// Explanation is what is known of a container's last start.
type Explanation struct {
	Start checkpoint.Start `json:"start"`
	// NearMisses are the registered checkpoints that come nearest to the
	// container's fingerprint without having it; empty if that was not computed.
	NearMisses []match.Miss `json:"nearMisses"`
	// Captures are the registered checkpoints that were taken of the container.
	Captures []Capture `json:"captures"`
	// FailedCapture is why its last capture failed, in words for what CRIU said; nil
	// if it did not.
	FailedCapture *criu.Diagnosis `json:"failedCapture,omitempty"`
	// same are those that have the fingerprint, considered those that were
	// considered at the start and are still registered.
	same, considered []checkpoint.Entry
}

// Explain returns what is known of a container's last start. The error wraps
// checkpoint.ErrNotFound if that is not recorded.
func (r *Report) Explain(namespace, container string) (Explanation, error) {
	start, err := record.Find(r.Store, namespace, container)
	if err != nil {
		return Explanation{}, err
	}
	x := Explanation{Start: start, NearMisses: []match.Miss{}, Captures: []Capture{}, FailedCapture: failedCapture(start.Bundle)}
	all, err := r.Store.List()
	if err != nil {
		return Explanation{}, err
	}
	for _, e := range all {
		if s := e.Checkpoint.Source; s.Namespace == namespace && s.Container == start.Container {
			x.Captures = append(x.Captures, r.capturesOf(e))
		}
		if slices.ContainsFunc(start.Decision.Verdicts, func(v checkpoint.Verdict) bool { return v.Digest == e.Digest }) {
			x.considered = append(x.considered, e)
		}
		if e.Checkpoint.Kind != checkpoint.ResumePoint && len(start.Fingerprint) > 0 && maps.Equal(start.Fingerprint, e.Checkpoint.Fingerprint) {
			x.same = append(x.same, e)
		}
	}
	if len(start.Fingerprint) > 0 {
		x.NearMisses = misses(start.Fingerprint, all, x.considered)
	}
	return x, nil
}

// called is a container's id, and after it the name that it is called by.
func called(st checkpoint.Start) string {
	if st.Name == "" {
		return st.Container
	}
	return fmt.Sprintf("%s (%s)", st.Container, st.Name)
}

// misses are the nearest checkpoints with another fingerprint, and all of those that were
// considered.
func misses(fp checkpoint.Fingerprint, all, considered []checkpoint.Entry) []match.Miss {
	// A resume point is another's, or was considered.
	templates := slices.DeleteFunc(slices.Clone(all), func(e checkpoint.Entry) bool { return e.Checkpoint.Kind == checkpoint.ResumePoint })
	found := match.Nearest(fp, templates, maxMisses)
	for _, e := range considered {
		known := slices.ContainsFunc(found, func(m match.Miss) bool { return m.Digest == e.Digest })
		if m, differs := match.Compare(fp, e); differs && !known {
			found = append(found, m)
		}
	}
	return found
}

// failedCapture reads the log of the last capture below a bundle; nil if there is none,
// or if it succeeded.
func failedCapture(bundle string) *criu.Diagnosis {
	log := filepath.Join(bundle, "criu", "dump.log")
	if _, err := os.Stat(log); err != nil {
		return nil
	}
	d := criu.DiagnoseFile(log)
	if d.Cause == "" {
		return nil
	}
	return &d
}

// Write writes the explanation for people.
func (x Explanation) Write(r *Report) error {
	s := sections{out: r.Out}
	s.add("Start", x.startRows(r)...)
	s.add("Phases", x.phaseRows()...)
	s.add("Considered", verdictRows(x.Start.Decision.Verdicts)...)
	s.add("Failures", x.failureRows()...)
	if x.Start.Outcome != checkpoint.Restore {
		s.add("Since then", x.sinceRows(r)...)
		s.add("Near misses", x.missRows()...)
	}
	if c := x.Start.Capture; c != nil {
		s.add("Captured by itself", ownCaptureRows(r, *c)...)
	}
	s.add("Captures of this container", captureRows(r, x.Captures)...)
	return s.err
}

// failureRows tell of restores from the checkpoints that were considered, and of the
// last capture.
func (x Explanation) failureRows() []row {
	var rows []row
	for _, e := range x.considered {
		if n := e.State.Failures; n > 0 {
			rows = append(rows, pair(ref(e.Name, e.Digest), fmt.Sprintf("%s failed in a row, last: %s", human.Count(n, "restore"), e.State.LastFailure)))
		}
	}
	if x.FailedCapture != nil {
		rows = append(rows, pair("last capture", x.FailedCapture.String()))
	}
	return rows
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
		pair("container", called(st)),
		pair("namespace", st.Namespace),
		pair("started", r.ago(st.At)),
		pair("decision", decision),
		pair("reason", st.Decision.Reason),
	}
	rows = append(rows, memoryRows(st.Memory, st.MemoryReason)...)
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

// ownCaptureRows tell of the last capture that the shim took by itself.
func ownCaptureRows(r *Report, c checkpoint.Capture) []row {
	rows := []row{pair("capture", c.Mode), pair("outcome", c.Outcome)}
	if !c.At.IsZero() {
		rows = append(rows, pair("last tried", r.ago(c.At)))
	}
	if c.Digest != "" {
		rows = append(rows, pair("checkpoint", shortDigest(c.Digest)))
	}
	if c.Error != "" {
		rows = append(rows, pair("failed", c.Error))
	}
	if !c.NextTry.IsZero() {
		rows = append(rows, pair("next try", human.Time(c.NextTry)))
	}
	return rows
}

// memoryRows say how a restore's memory comes back.
func memoryRows(mode checkpoint.MemoryMode, why string) []row {
	if mode == "" {
		return nil
	}
	return []row{pair("memory", fmt.Sprintf("%s: %s", mode, why))}
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

func verdictRows(verdicts []checkpoint.Verdict) []row {
	rows := make([]row, 0, len(verdicts))
	for _, v := range verdicts {
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
	return missRows(x.NearMisses)
}

// missRows have a checkpoint and the first field in which it differs, with both values,
// and below it what else does.
func missRows(misses []match.Miss) []row {
	rows := make([]row, 0, len(misses))
	for _, m := range misses {
		rows = append(rows, pair(ref(m.Name, m.Digest), difference(m.First)))
		for i, line := range wrap(commas(m.Differs[1:]), lineWidth) {
			if i == 0 {
				line = "also " + line
			}
			rows = append(rows, row{"", human.Text(line)})
		}
	}
	return rows
}

// commas makes of several texts words that enumerate them.
func commas(texts []string) []string {
	words := slices.Clone(texts)
	for i := range len(words) - 1 {
		words[i] += ","
	}
	return words
}

// difference writes both values of a field.
func difference(d spec.Difference) string {
	return fmt.Sprintf("%s: %s here, %s in the checkpoint", d.Words, value(d.Container), value(d.Checkpoint))
}

func value(v *string) string {
	switch {
	case v == nil:
		return "none"
	case *v == "":
		return `""`
	}
	return *v
}

// ref names a checkpoint by name and digest.
func ref(name, digest string) string {
	if name == "" {
		return shortDigest(digest)
	}
	return fmt.Sprintf("%s (%s)", name, shortDigest(digest))
}

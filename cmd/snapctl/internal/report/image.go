package report

import (
	"cmp"
	"slices"
	"strings"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/dryrun"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/human"
	"github.com/containerd-snap/snap/oci/spec"
)

// maxStarts is the number of starts of an image that are named.
const maxStarts = 20

// Image is what containerd knows of an image.
type Image struct {
	Namespace, Name string
	// Containers are the ids of those that were made from it.
	Containers []string
	// Plan is how `ctr run` of it, without arguments, would start; nil, with PlanErr,
	// if that is not known.
	Plan    *dryrun.Plan
	PlanErr error
}

// ImageExplanation is what is known of the starts of an image.
type ImageExplanation struct {
	Image string `json:"image"`
	// Registered are the checkpoints that were taken of containers of it.
	Registered []Registered `json:"registered"`
	// Starts are the last starts of its containers, newest first, at most 20.
	Starts []checkpoint.Start `json:"starts"`
	// Next is how `ctr run` of it, without arguments, would start.
	Next *dryrun.Plan `json:"next,omitempty"`
	// NextUnknown is why that is not known.
	NextUnknown string `json:"nextUnknown,omitempty"`
}

// Registered is a checkpoint with what a start of its image would need to be restored
// from it.
type Registered struct {
	Capture
	// Needs are the settings in which a plain `ctr run` of the image differs; empty
	// if it does not, or if that is not known.
	Needs []spec.Difference `json:"needs"`
}

// ExplainImage returns what is known of the starts of an image.
func (r *Report) ExplainImage(i Image) (ImageExplanation, error) {
	x := ImageExplanation{Image: i.Name, Next: i.Plan, Registered: []Registered{}, Starts: []checkpoint.Start{}}
	var fp checkpoint.Fingerprint
	if i.PlanErr != nil {
		x.NextUnknown = i.PlanErr.Error()
	}
	if i.Plan != nil {
		fp = i.Plan.Fingerprint
	}
	of := func(f checkpoint.Fingerprint) bool {
		id := f[spec.FieldImage]
		return id != "" && id == fp[spec.FieldImage]
	}
	entries, err := r.Store.List()
	if err != nil {
		return x, err
	}
	digests := map[string]bool{}
	for _, e := range entries {
		if e.Checkpoint.Source.Image != i.Name && !of(e.Checkpoint.Fingerprint) {
			continue
		}
		digests[e.Digest] = true
		g := Registered{Capture: r.capturesOf(e), Needs: []spec.Difference{}}
		if fp != nil {
			g.Needs = spec.Differences(fp, e.Checkpoint.Fingerprint)
		}
		x.Registered = append(x.Registered, g)
	}
	starts, err := r.Store.Starts()
	for _, s := range starts {
		made := s.Namespace == i.Namespace && slices.Contains(i.Containers, s.Container)
		if (made || of(s.Fingerprint) || digests[s.Decision.Digest]) && len(x.Starts) < maxStarts {
			x.Starts = append(x.Starts, s)
		}
	}
	return x, err
}

// Write writes the explanation for people.
func (x ImageExplanation) Write(r *Report) error {
	s := sections{out: r.Out}
	s.add("Image", pair("name", x.Image))
	if len(x.Registered) == 0 {
		s.add("Registered", row{"nothing: `snapctl create` captures one of its containers"})
	}
	s.add("Registered", registeredRows(r, x)...)
	if len(x.Starts) == 0 {
		s.add("Starts", row{"none is recorded"})
	}
	s.add("Starts", startsRows(r, x.Starts)...)
	if x.Next == nil {
		s.add("A start with `ctr run`, without arguments", row{human.Text("not known: " + x.NextUnknown)})
		return s.err
	}
	s.add("A start with `ctr run`, without arguments", append([]row{pair("command", strings.Join(x.Next.Args, " "))}, decisionRows(*x.Next)...)...)
	return s.err
}

func registeredRows(r *Report, x ImageExplanation) []row {
	var rows []row
	for _, g := range x.Registered {
		status := g.Status
		if g.Why != "" {
			status += ": " + g.Why
		}
		rows = append(rows, pair(ref(g.Name, g.Digest), status+"; taken "+r.ago(g.CreatedAt)))
		for _, d := range g.Needs {
			rows = append(rows, pair("", "a start needs "+need(d)))
		}
	}
	return rows
}

// need writes what a setting must be, and what it is without arguments.
func need(d spec.Difference) string {
	return strings.TrimSuffix(strings.TrimSuffix(d.Words, " differs"), " differ") + " " + value(d.Checkpoint) + " (without arguments: " + value(d.Container) + ")"
}

func startsRows(r *Report, starts []checkpoint.Start) []row {
	if len(starts) == 0 {
		return nil
	}
	rows := []row{{"CONTAINER", "NAMESPACE", "AGE", "OUTCOME", "WHY"}}
	for _, s := range starts {
		outcome, why := string(s.Outcome), s.Decision.Reason
		switch {
		case s.Error != "":
			outcome, why = "failed", s.Error
		case s.Fallback != "":
			outcome, why = "fallback", s.Fallback
		}
		rows = append(rows, row{
			human.Text(cmp.Or(s.Name, s.Container)), human.Text(s.Namespace), human.Age(r.Now.Sub(s.At)), dash(outcome), human.Short(why, lineWidth),
		})
	}
	return rows
}

package report

import (
	"strings"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/match"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/dryrun"
)

// DryRun is how a container would start.
type DryRun struct {
	DryRun dryrun.Plan `json:"dryRun"`
	// NearMisses are as in an Explanation.
	NearMisses []match.Miss `json:"nearMisses"`
}

// DryRun adds to a plan the checkpoints that come nearest to fitting it.
func (r *Report) DryRun(p dryrun.Plan) (DryRun, error) {
	all, err := r.Store.List()
	return DryRun{DryRun: p, NearMisses: misses(p.Fingerprint, all, nil)}, err
}

// Write writes it for people.
func (d DryRun) Write(r *Report) error {
	s := sections{out: r.Out}
	s.add("Start to come", planRows(d.DryRun)...)
	s.add("Considered", verdictRows(d.DryRun.Decision.Verdicts)...)
	if d.DryRun.Decision.Action != checkpoint.Restore {
		s.add("Near misses", missRows(d.NearMisses)...)
	}
	return s.err
}

func planRows(p dryrun.Plan) []row {
	rows := []row{pair("image", p.Image), pair("image digest", p.ImageDigest)}
	if p.Container != "" {
		rows = append([]row{pair("container", p.Container)}, rows...)
	}
	rows = append(rows, pair("namespace", p.Namespace), pair("command", strings.Join(p.Args, " ")))
	if p.Runtime != "" {
		rows = append(rows, pair("runtime", p.Runtime+": it boots whatever is registered; what follows holds for "+dryrun.Runtime))
	}
	return append(rows, decisionRows(p)...)
}

func decisionRows(p dryrun.Plan) []row {
	if p.Error != "" {
		return []row{pair("decision", "the start would fail: "+p.Error)}
	}
	d := p.Decision
	decision := string(d.Action)
	if d.Digest != "" {
		decision += " from " + ref(d.Name, d.Digest)
	}
	if d.Demanded {
		decision += ", as is asked for"
	}
	return append([]row{pair("decision", decision), pair("reason", d.Reason)}, memoryRows(p.Memory, p.MemoryReason)...)
}

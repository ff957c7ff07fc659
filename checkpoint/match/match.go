// Package match decides how a container starts: restored from which registered
// checkpoint, or booted, and why.
//
// It is pure: what it decides follows from its arguments alone. It reads no
// file and no clock and logs nothing, so that a decision can be explained, and
// tested, anywhere. It has no locks and changes none of its arguments.
package match

import (
	"cmp"
	"fmt"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/oci/spec"
)

// Request is what is known of a container that is about to start.
type Request struct {
	// Policy is the container's; the empty one counts as spec.IfPresent.
	Policy spec.Policy
	// Demanded is the only checkpoint to restore from, where the user named
	// one; nil to choose among the candidates.
	Demanded *checkpoint.Entry
	// Sandbox marks a pod's sandbox. It always boots.
	Sandbox bool
	// Obstacles are the reasons why the container can never be restored, as
	// spec.Obstacles gives them.
	Obstacles []string
	// Fingerprint is the container's.
	Fingerprint checkpoint.Fingerprint
	// FreshRootfs says that nothing was written to the container's writable
	// layer yet. A template brings its own difference to the image, which fits only
	// upon a layer that has none; a resume point sets its container's own layer back.
	FreshRootfs bool
	// Owner is the container's identity, as spec.Owner gives it: it starts from no
	// other's resume points.
	Owner string
	// Failed says of checkpoints from which this very start could not be restored why
	// that was, by digest.
	Failed map[string]string
	// Missing says of checkpoints whose programs held files of volumes which of them the
	// container's do not have, by digest.
	Missing map[string]string
}

// Decide says how the container starts on a host. The candidates are the
// registered checkpoints that come into question, in any order; those that
// another fingerprint kept from being so may be among them.
//
// The newest candidate that fits is restored. A template that is older than a resume
// point of the container does not fit, whether or not that can be restored: the
// container would lose what it has done since. Where the user demanded a
// restore, by Request.Demanded or by the policy spec.Required, the decision has
// Demanded set: an Action of Boot then means that the start must fail with the
// decision's Reason instead of booting. A checkpoint that was named must fit as
// any other must, but is restored even if it is quarantined, or a template beside a newer
// resume point: naming it is how an operator tries it. Neither holds for sandboxes and for spec.Never,
// which always boot.
//
// Verdicts has one for each checkpoint that was considered, in the order given;
// it is empty where the answer did not depend on any.
func Decide(req Request, candidates []checkpoint.Entry, host checkpoint.HostFacts) checkpoint.Decision {
	switch {
	case req.Sandbox:
		return checkpoint.Decision{Action: checkpoint.Boot, Reason: "pod sandbox", Class: checkpoint.ClassSandbox}
	case req.Policy == spec.Never:
		return checkpoint.Decision{Action: checkpoint.Boot, Reason: "restore=Never", Class: checkpoint.ClassNever}
	}
	d := checkpoint.Decision{
		Action:   checkpoint.Boot,
		Demanded: req.Demanded != nil || req.Policy == spec.Required,
	}
	_, known := req.Fingerprint[spec.FieldImage]
	if req.Demanded != nil {
		candidates = []checkpoint.Entry{*req.Demanded}
	}
	switch {
	case len(req.Obstacles) > 0:
		d.Reason, d.Class = req.Obstacles[0], checkpoint.ClassObstacle
	case !known && req.Demanded == nil:
		// Two images that are unknown look equal and need not be. Who names a
		// checkpoint vouches for that.
		d.Reason, d.Class = "its image is unknown; name a checkpoint to restore from", checkpoint.ClassUnknown
	case len(candidates) == 0:
		d.Reason, d.Class = "no registered checkpoint with this fingerprint", checkpoint.ClassNone
	default:
		choose(&d, req, candidates, host)
		d.Class = classOf(d, req)
	}
	return d
}

// classOf is the class of a decision between candidates.
func classOf(d checkpoint.Decision, req Request) checkpoint.Class {
	switch {
	case d.Action == checkpoint.Boot:
		return checkpoint.ClassUnfit
	case req.Demanded != nil:
		return checkpoint.ClassDemanded
	}
	return checkpoint.ClassFits
}

// Served says whether a container with this fingerprint and a fresh writable layer
// would be restored from one of the templates.
func Served(f checkpoint.Fingerprint, templates []checkpoint.Entry, host checkpoint.HostFacts) bool {
	return Decide(Request{Fingerprint: f, FreshRootfs: true}, templates, host).Action == checkpoint.Restore
}

// choose judges every candidate and completes the decision.
func choose(d *checkpoint.Decision, req Request, candidates []checkpoint.Entry, host checkpoint.HostFacts) {
	j := newJudge(req, candidates, host)
	best, passed, reason := 0, -1, ""
	for i, e := range candidates {
		n, why := j.judge(e)
		d.Verdicts = append(d.Verdicts, checkpoint.Verdict{Digest: e.Digest, Name: e.Name, Fits: why == "", Reason: why})
		// Who passed more checks is nearer to fitting, and who fits passed all.
		if n > passed || n == passed && newer(e, candidates[best]) {
			best, passed, reason = i, n, why
		}
	}
	e := candidates[best]
	if reason != "" {
		d.Reason = fmt.Sprintf("%s does not fit: %s", describe(e), reason)
		if n := len(candidates); n > 1 {
			d.Reason += fmt.Sprintf(" (the nearest of %d)", n)
		}
		return
	}
	d.Action, d.Digest, d.Name = checkpoint.Restore, e.Digest, e.Name
	d.Reason = fmt.Sprintf("%s fits", describe(e))
	if req.Demanded != nil {
		d.Reason = fmt.Sprintf("%s was asked for and fits", describe(e))
	}
}

// describe names a checkpoint in a sentence.
func describe(e checkpoint.Entry) string {
	if e.Checkpoint.Kind == checkpoint.ResumePoint {
		return "resume point " + Ref(e)
	}
	return "checkpoint " + Ref(e)
}

// newer says that a is to be preferred to b. The digest breaks ties, so that
// every shim on the node decides alike.
func newer(a, b checkpoint.Entry) bool {
	return cmp.Or(a.Checkpoint.CreatedAt.Compare(b.Checkpoint.CreatedAt), cmp.Compare(a.Digest, b.Digest)) > 0
}

// refLength is the length to which Ref shortens a digest: the algorithm and 12
// of the hexadecimal digits, which is unique on any node.
const refLength = len("sha256:") + 12

// Ref names a checkpoint for people: by its name or, if it has none, by the
// beginning of its digest. The store resolves both.
func Ref(e checkpoint.Entry) string {
	if e.Name != "" {
		return e.Name
	}
	return e.Digest[:min(len(e.Digest), refLength)]
}

package report

import (
	"fmt"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/match"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/human"
)

// The states of a registered checkpoint, as an operator sees them.
const (
	// Ready checkpoints are restored from where they fit.
	Ready = "ready"
	// Failing ones are, too, though the last restore failed.
	Failing = "failing"
	// Unfit ones cannot be restored on this node.
	Unfit = "unfit"
	// Quarantined ones are not chosen until they are cleared.
	Quarantined = "quarantined"
	// Damaged ones have an unreadable manifest.
	Damaged = "damaged"
)

// Status returns the state of a checkpoint on a node and, unless it is ready, why.
// A host of nil is not known, and taken to be fit.
func Status(e checkpoint.Entry, host *checkpoint.HostFacts) (status, why string) {
	if e.State.Quarantined() {
		return Quarantined, fmt.Sprintf("%d restores failed in a row; `snapctl clear %s` has it chosen again", e.State.Failures, match.Ref(e))
	}
	if why := unfit(e, host); why != "" {
		return Unfit, why
	}
	if n := e.State.Failures; n > 0 {
		return Failing, fmt.Sprintf("%s failed since the last success; at %d it is quarantined", human.Count(n, "restore"), checkpoint.QuarantineAfter)
	}
	return Ready, ""
}

// unfit says why no container could be restored from e on the host. It asks the matcher
// as a container would that is what was captured.
func unfit(e checkpoint.Entry, host *checkpoint.HostFacts) string {
	if host == nil {
		return ""
	}
	d := match.Decide(match.Request{Demanded: &e, Fingerprint: e.Checkpoint.Fingerprint, Owner: e.Checkpoint.Owner, FreshRootfs: true}, nil, *host)
	if d.Action == checkpoint.Restore || len(d.Verdicts) == 0 {
		return ""
	}
	return d.Verdicts[0].Reason
}

// shortDigest is a digest as tables have it: without the algorithm, 12 digits. The
// store resolves it.
func shortDigest(digest string) string {
	const prefix, digits = len("sha256:"), 12
	if len(digest) < prefix+digits {
		return digest
	}
	return digest[prefix : prefix+digits]
}

package checkpoint

import "time"

// Action is one of the two ways in which a task starts.
type Action string

// The two ways in which a task starts.
const (
	Boot    Action = "boot"
	Restore Action = "restore"
)

// Decision says how a task starts, and why. Every start has exactly one.
type Decision struct {
	Action Action `json:"action"`
	// Reason is one sentence for people, without a full stop.
	Reason string `json:"reason"`
	// Class is the reason in a word, for counting.
	Class Class `json:"class,omitempty"`
	// Digest is the checkpoint to restore from; empty for Boot.
	Digest string `json:"digest,omitempty"`
	// Name is its name, if it has one.
	Name string `json:"name,omitempty"`
	// Demanded says that the user asked for a restore: a failure then fails
	// the start instead of booting.
	Demanded bool `json:"demanded,omitempty"`
	// Verdicts says of each checkpoint that was considered why it fits or not.
	Verdicts []Verdict `json:"verdicts,omitempty"`
}

// Class is one of a fixed set of reasons for a decision.
type Class string

// The classes.
const (
	// ClassFits and ClassDemanded restore a checkpoint that was found or named, ClassImages
	// a directory of CRIU images.
	ClassFits     Class = "fits"
	ClassDemanded Class = "demanded"
	ClassImages   Class = "images"
	// ClassNone boots because no checkpoint was considered, ClassUnfit because of those
	// that were none fits.
	ClassNone  Class = "none"
	ClassUnfit Class = "unfit"
	// ClassObstacle boots what can never be restored, ClassUnknown a container of an
	// unknown image, ClassNever one that asks for it.
	ClassObstacle Class = "obstacle"
	ClassUnknown  Class = "unknown_image"
	ClassNever    Class = "never"
	ClassSandbox  Class = "sandbox"
	// ClassTrouble boots because something kept from a decision: the store, the
	// configuration, containerd.
	ClassTrouble Class = "trouble"
	// ClassOther is for what has no class, such as a start that failed before a decision.
	ClassOther Class = "other"
)

// Classes lists all of them.
var Classes = []Class{
	ClassFits, ClassDemanded, ClassImages, ClassNone, ClassUnfit, ClassObstacle, ClassUnknown, ClassNever, ClassSandbox, ClassTrouble, ClassOther,
}

// Verdict is the judgement on one candidate.
type Verdict struct {
	Digest string `json:"digest"`
	Name   string `json:"name,omitempty"`
	Fits   bool   `json:"fits"`
	// Reason names the first thing that differs; empty if it fits.
	Reason string `json:"reason,omitempty"`
}

// Start is the record of one start of a task: what was decided, why, what
// became of it and what it cost. The store keeps the last one per container.
type Start struct {
	Namespace string `json:"namespace"`
	Container string `json:"container"`
	// Name is what users call the container, whose id is a number; empty if they call it by its id.
	Name    string `json:"name,omitempty"`
	Bundle  string `json:"bundle"`
	ShimPID int    `json:"shimPid"`
	// Address is the shim's ttrpc address, for capture.
	Address  string    `json:"address"`
	PID      int       `json:"pid"`
	At       time.Time `json:"at"`
	Decision Decision  `json:"decision"`
	// Outcome is what happened: the decision's action, or Boot after a failed restore.
	Outcome Action `json:"outcome"`
	// Fallback is the reason of the failed restore; empty if there was none.
	Fallback string `json:"fallback,omitempty"`
	// Error is why the start failed; empty if it did not.
	Error string `json:"error,omitempty"`
	// Fingerprint is the container's, where it was computed.
	Fingerprint Fingerprint `json:"fingerprint,omitempty"`
	// Memory is how the memory of a restored task came back, and MemoryReason why so.
	Memory       MemoryMode `json:"memory,omitempty"`
	MemoryReason string     `json:"memoryReason,omitempty"`
	// Phases are the parts of the start in their order.
	Phases []Phase `json:"phases,omitempty"`
	// Shim are the parts of the shim's own start, before this one's, of the first container
	// that it serves; empty for later ones.
	Shim []Phase `json:"shim,omitempty"`
	// Capture is the last that the shim took by itself since; nil if none is to be taken.
	Capture *Capture `json:"capture,omitempty"`
}

// Capture is what became of a capture that the shim took by itself.
type Capture struct {
	// Mode is the setting that asked for it, as "OnReady" or "Every=10m0s".
	Mode string `json:"mode"`
	// At is when it was last tried; zero if it was not yet.
	At time.Time `json:"at,omitzero"`
	// Digest is the checkpoint, if it was registered.
	Digest string `json:"digest,omitempty"`
	// Outcome says in words what came of it: what was captured, why nothing had to be,
	// or what is waited for.
	Outcome string `json:"outcome"`
	// Error is why it failed; empty if it did not.
	Error string `json:"error,omitempty"`
	// NextTry is when it is tried again, at the earliest; zero for not at all.
	NextTry time.Time `json:"nextTry,omitzero"`
}

// Attempt is a failed capture of containers with one fingerprint, as the store keeps
// it for the next of them.
type Attempt struct {
	// Failures counts them in a row.
	Failures int `json:"failures"`
	// Reason is that of the last.
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
	// NextTry is when the next is to be made, at the earliest.
	NextTry time.Time `json:"nextTry"`
}

// Phase is one timed part of a start.
type Phase struct {
	Name string `json:"name"`
	// AtMS is when it began, in milliseconds since Start.At; negative before it.
	AtMS float64 `json:"atMs"`
	// MS is its duration in milliseconds.
	MS float64 `json:"ms"`
}

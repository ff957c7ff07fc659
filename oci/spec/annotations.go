package spec

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/containerd-snap/snap/checkpoint"
)

// Prefix begins every annotation key that Snap reads.
const Prefix = "io.containerd.snap.v2/"

// The annotations that containerd's CRI plugin sets, as far as they matter here.
const (
	criContainerName = "io.kubernetes.cri.container-name"
	criContainerType = "io.kubernetes.cri.container-type"
	criSandbox       = "sandbox"
)

// The keys below Prefix.
const (
	keyRestore    = "restore"
	keyCheckpoint = "checkpoint"
)

// maxReference bounds a reference to a checkpoint, in bytes; the store's own
// rules for names are tighter.
const maxReference = 255

// Policy says whether a container may, must or must not start from a
// checkpoint. It reads as Kubernetes' imagePullPolicy does.
type Policy string

// The valid policies.
const (
	// IfPresent restores if a registered checkpoint fits and boots otherwise.
	// It is the default.
	IfPresent Policy = "IfPresent"
	// Required restores, and fails the start if it cannot.
	Required Policy = "Required"
	// Never boots.
	Never Policy = "Never"
)

// Settings is what a container's annotations ask of Snap.
type Settings struct {
	// Restore is one of the valid policies.
	Restore Policy
	// Checkpoint names the only checkpoint to restore from, by name or digest;
	// empty to choose by fingerprint.
	Checkpoint string
}

// ParseSettings reads the annotations of one container. A key
// `io.containerd.snap.v2/KEY` applies to every container that carries it,
// `io.containerd.snap.v2/KEY.CONTAINER` only to the container of a pod that CRI
// calls CONTAINER, where it overrides the former: pod annotations reach every
// container of a pod. Keys that address other containers are checked, then
// ignored. Annotations without the prefix are not looked at.
//
// Errors are checkpoint.ErrInvalid and name the annotation, its value and what
// is allowed.
func ParseSettings(annotations map[string]string) (Settings, error) {
	container := annotations[criContainerName]
	general, addressed := map[string]string{}, map[string]string{}
	// Sorted, so that of several errors the same one is reported each time.
	for _, annotation := range slices.Sorted(maps.Keys(annotations)) {
		rest, ours := strings.CutPrefix(annotation, Prefix)
		if !ours {
			continue
		}
		value := annotations[annotation]
		key, target, dotted := strings.Cut(rest, ".")
		if dotted && target == "" {
			return Settings{}, fmt.Errorf("%w annotation %s=%q: no container name follows the dot", checkpoint.ErrInvalid, annotation, value)
		}
		if err := checkAnnotation(annotation, key, value); err != nil {
			return Settings{}, err
		}
		switch {
		case !dotted:
			general[key] = value
		case target == container:
			addressed[key] = value
		}
	}
	maps.Copy(general, addressed)
	s := Settings{Restore: IfPresent, Checkpoint: general[keyCheckpoint]}
	if v, ok := general[keyRestore]; ok {
		s.Restore = Policy(v)
	}
	if s.Restore == Never && s.Checkpoint != "" {
		return Settings{}, fmt.Errorf("%w annotations: %s%s=%q cannot hold together with %s%s=%s; remove one of them, or address each to its container",
			checkpoint.ErrInvalid, Prefix, keyCheckpoint, s.Checkpoint, Prefix, keyRestore, Never)
	}
	return s, nil
}

// checkAnnotation says whether key (an annotation without prefix and address) is
// known and value is allowed for it.
func checkAnnotation(annotation, key, value string) error {
	switch key {
	case keyRestore:
		switch Policy(value) {
		case IfPresent, Required, Never:
			return nil
		}
		return fmt.Errorf("%w annotation %s=%q: allowed are %s, %s, %s", checkpoint.ErrInvalid, annotation, value, IfPresent, Required, Never)
	case keyCheckpoint:
		if validReference(value) {
			return nil
		}
		return fmt.Errorf("%w annotation %s=%q: allowed is the name or the digest of a registered checkpoint", checkpoint.ErrInvalid, annotation, value)
	}
	return fmt.Errorf("%w annotation %s=%q: allowed keys are %s%s and %s%s, each optionally followed by a dot and a container name",
		checkpoint.ErrInvalid, annotation, value, Prefix, keyRestore, Prefix, keyCheckpoint)
}

// validReference rejects what can be no reference under any rule for names; the
// store, which makes the rules, judges the rest when it resolves it.
func validReference(ref string) bool {
	odd := func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) || r == unicode.ReplacementChar }
	return ref != "" && len(ref) <= maxReference && !strings.ContainsFunc(ref, odd)
}

// IsSandbox says that the spec is of a pod's sandbox (its pause container), by
// the annotation that CRI sets.
func IsSandbox(s *specs.Spec) bool {
	return s.Annotations[criContainerType] == criSandbox
}

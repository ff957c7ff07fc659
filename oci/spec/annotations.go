package spec

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/containerd-snap/snap/checkpoint"
)

// Prefix begins every annotation key that Snap reads.
const Prefix = "io.containerd.snap.v2/"

// The annotations that containerd's CRI plugin sets, as far as they matter here.
const (
	criContainerName = "io.kubernetes.cri.container-name"
	criContainerType = "io.kubernetes.cri.container-type"
	criPodName       = "io.kubernetes.cri.sandbox-name"
	criPodNamespace  = "io.kubernetes.cri.sandbox-namespace"
	criSandbox       = "sandbox"
)

// nerdctlName is the annotation that nerdctl sets for its hook.
const nerdctlName = "nerdctl/name"

// Name is what users call a container beside its id; "" for nothing.
func Name(s *specs.Spec) string { return s.Annotations[nerdctlName] }

// Set reads value into the setting that key names, a key without prefix and
// address. The error is checkpoint.ErrInvalid and names key, value and what is
// allowed.
func (s *Settings) Set(key, value string) error {
	if err := assign(s, key, value); err != nil {
		return fmt.Errorf("%w setting %s=%q: %w", checkpoint.ErrInvalid, key, value, err)
	}
	return nil
}

// assign is Set without the words before the reason.
func assign(s *Settings, key, value string) error {
	i := slices.IndexFunc(settings, func(x setting) bool { return x.key == key })
	if i < 0 {
		return errors.New("allowed keys are " + strings.Join(Keys(), ", "))
	}
	if why := settings[i].read(s, value); why != nil {
		if errors.Is(why, errGrammar) {
			return errors.New("allowed is " + settings[i].grammar)
		}
		return fmt.Errorf("%w; allowed is %s", why, settings[i].grammar)
	}
	return nil
}

// Keys returns the keys of all settings.
func Keys() []string {
	keys := make([]string, len(settings))
	for i, s := range settings {
		keys[i] = s.key
	}
	return keys
}

// ParseSettings reads the annotations of one container over the defaults. A key
// `io.containerd.snap.v2/KEY` applies to every container that carries it,
// `io.containerd.snap.v2/KEY.CONTAINER` only to the container of a pod that CRI
// calls CONTAINER, where it overrides the former: pod annotations reach every
// container of a pod. Keys that address other containers are checked, then
// ignored. Annotations without the prefix are not looked at.
//
// Errors are checkpoint.ErrInvalid and name the annotation, its value and what
// is allowed.
func ParseSettings(annotations map[string]string, defaults Settings) (Settings, error) {
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
		if err := assign(new(Settings), key, value); err != nil {
			return Settings{}, fmt.Errorf("%w annotation %s=%q: %w", checkpoint.ErrInvalid, annotation, value, err)
		}
		switch {
		case !dotted:
			general[key] = value
		case target == container:
			addressed[key] = value
		}
	}
	maps.Copy(general, addressed)
	s := defaults
	for key, value := range general {
		if err := assign(&s, key, value); err != nil {
			return Settings{}, err // cannot be: it was read once
		}
	}
	_, chosen := general[keyRestore]
	switch {
	case s.Restore != Never || s.Checkpoint == "":
	case !chosen:
		// Who names a checkpoint overrides the host's default.
		s.Restore = IfPresent
	default:
		return Settings{}, fmt.Errorf("%w annotations: %s%s=%q cannot hold together with %s%s=%s; remove one of them, or address each to its container",
			checkpoint.ErrInvalid, Prefix, keyCheckpoint, s.Checkpoint, Prefix, keyRestore, Never)
	}
	return s, nil
}

// IsSandbox says that the spec is of a pod's sandbox (its pause container), by
// the annotation that CRI sets.
func IsSandbox(s *specs.Spec) bool {
	return s.Annotations[criContainerType] == criSandbox
}

package spec

import (
	"fmt"
	"maps"
	"slices"

	"github.com/containerd-snap/snap/checkpoint"
)

// personal are the keys that mean one container, and make no default.
var personal = []string{keyCheckpoint, "resume-key"}

// ParseDefaults reads what the host's administrator sets, by keys without prefix,
// for containers whose annotations are silent. Its errors are those of Settings.Set.
func ParseDefaults(defaults map[string]string) (Settings, error) {
	s := DefaultSettings()
	for _, key := range slices.Sorted(maps.Keys(defaults)) { // of several errors always the same
		if slices.Contains(personal, key) {
			return DefaultSettings(), fmt.Errorf("%w setting %s=%q: it addresses one container; annotate that", checkpoint.ErrInvalid, key, defaults[key])
		}
		if err := s.Set(key, defaults[key]); err != nil {
			return DefaultSettings(), err
		}
	}
	return s, nil
}

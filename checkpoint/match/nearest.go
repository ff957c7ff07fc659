package match

import (
	"cmp"
	"slices"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/oci/spec"
)

// Miss is a checkpoint whose fingerprint differs from a container's.
type Miss struct {
	Digest string `json:"digest"`
	Name   string `json:"name,omitempty"`
	// SameImage says that it was captured from the same image.
	SameImage bool `json:"sameImage"`
	// Differs says in words, as spec.Describe, what differs; never empty.
	Differs []string `json:"differs"`
}

// Nearest returns the checkpoints that come nearest to fitting a container
// without having its fingerprint, at most n: those of the same image first, then
// those with the fewest differences, then the newest. Checkpoints that do have
// the fingerprint are left out; Decide speaks of them.
func Nearest(fp checkpoint.Fingerprint, all []checkpoint.Entry, n int) []Miss {
	type near struct {
		Miss
		entry checkpoint.Entry
	}
	var found []near
	for _, e := range all {
		fields := fp.Diff(e.Checkpoint.Fingerprint)
		if len(fields) == 0 {
			continue
		}
		image, known := fp[spec.FieldImage]
		m := Miss{
			Digest: e.Digest, Name: e.Name, Differs: fields,
			SameImage: known && e.Checkpoint.Fingerprint[spec.FieldImage] == image,
		}
		found = append(found, near{m, e})
	}
	slices.SortFunc(found, func(a, b near) int {
		switch {
		case a.SameImage != b.SameImage && a.SameImage:
			return -1
		case a.SameImage != b.SameImage:
			return 1
		case len(a.Differs) != len(b.Differs):
			return cmp.Compare(len(a.Differs), len(b.Differs))
		case newer(a.entry, b.entry):
			return -1
		case newer(b.entry, a.entry):
			return 1
		}
		return 0
	})
	found = found[:min(len(found), max(n, 0))]
	misses := make([]Miss, 0, len(found))
	for _, f := range found {
		for i, field := range f.Differs {
			f.Differs[i] = spec.Describe(field)
		}
		misses = append(misses, f.Miss)
	}
	return misses
}

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
	// Differs says in words, as spec.Describe, what differs, the most telling first;
	// never empty.
	Differs []string `json:"differs"`
	// First is the first of these, with both values.
	First spec.Difference `json:"first"`
}

// Compare says in what a checkpoint's fingerprint differs from a container's; ok is false
// if it does not.
func Compare(fp checkpoint.Fingerprint, e checkpoint.Entry) (m Miss, ok bool) {
	all := spec.Differences(fp, e.Checkpoint.Fingerprint)
	if len(all) == 0 {
		return Miss{}, false
	}
	image, known := fp[spec.FieldImage]
	m = Miss{
		Digest: e.Digest, Name: e.Name, First: all[0], Differs: make([]string, 0, len(all)),
		SameImage: known && e.Checkpoint.Fingerprint[spec.FieldImage] == image,
	}
	for _, d := range all {
		m.Differs = append(m.Differs, d.Words)
	}
	return m, true
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
		m, ok := Compare(fp, e)
		if !ok {
			continue
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
		misses = append(misses, f.Miss)
	}
	return misses
}

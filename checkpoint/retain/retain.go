// Package retain says which checkpoints a store can do without, within budgets, and in
// which order they go.
//
// It is pure: what it selects follows from its arguments alone, so that the order
// can be tested, and shown before anything is removed. Removing is the store's
// business. It has no locks and changes none of its arguments.
package retain

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/oci/spec"
)

// Limits are the budgets; 0 is no limit.
type Limits struct {
	// MaxBytes is the size of all checkpoints together, what they share counted once.
	MaxBytes int64
	// PerImage is the number of templates of one image and command.
	PerImage int
	// MaxAge is counted from the capture, MaxIdle from the last use.
	MaxAge, MaxIdle time.Duration
	// ResumePoints is the number of resume points of one owner.
	ResumePoints int
}

// Cause is the budget that a checkpoint exceeds.
type Cause string

// The causes, in the order in which they are looked for.
const (
	Age          Cause = "age"
	Idle         Cause = "idle"
	Moved        Cause = "moved"
	ResumePoints Cause = "resume_points"
	PerImage     Cause = "per_image"
	Bytes        Cause = "bytes"
)

// Causes lists all of them.
var Causes = []Cause{Age, Idle, Moved, ResumePoints, PerImage, Bytes}

// Removal is a checkpoint that has to go.
type Removal struct {
	Entry checkpoint.Entry
	Cause Cause
	// Reason is the cause in words.
	Reason string
	// Frees is the room on the disk that it frees if those before it went, too.
	Frees int64
}

// Select returns the checkpoints that have to go for the limits to hold, first what
// goes first. Those that spare says something of stay, and count; spare may be nil.
//
//  1. A pinned checkpoint stays, whatever the limits.
//  2. What is older than MaxAge goes.
//  3. What was not used for MaxIdle goes, unless it has a name: what holds by default
//     touches nothing that a person has named.
//  4. A template without a name goes if its image's tag has moved on: if a newer one
//     of the same image name, not quarantined, differs from it in nothing but the
//     image's content.
//  5. Of the resume points of an owner the newest stay, of those without a name.
//  6. Of the templates of an image and command the newest stay, of those without a name.
//  7. While what is left is larger than MaxBytes: first what is quarantined, then
//     resume points but each owner's newest, then templates, then each owner's
//     newest resume point; of each kind what was not used for the longest time.
//
// In 5 and 6, a quarantined checkpoint counts as older than any that is not.
func Select(entries []checkpoint.Entry, l Limits, now time.Time, spare func(checkpoint.Entry) bool) []Removal {
	s := selection{limits: l, now: now}
	for _, e := range entries {
		s.usage.Add(&e.Checkpoint)
		if e.State.Pinned || spare != nil && spare(e) {
			s.staying = append(s.staying, e)
		} else {
			s.loose = append(s.loose, e)
		}
	}
	slices.SortFunc(s.loose, better)
	s.age()
	s.idle()
	s.moved()
	s.surplus(ResumePoints, l.ResumePoints, "resume points of this container", ownerOf)
	s.surplus(PerImage, l.PerImage, "templates of this image and command", imageOf)
	s.bytes()
	return s.removals
}

// selection is one run of Select.
type selection struct {
	limits Limits
	now    time.Time
	// loose are those that may go, better ones first; staying those that may not.
	loose, staying []checkpoint.Entry
	// usage is what is left takes.
	usage    checkpoint.Usage
	removals []Removal
}

func (s *selection) remove(e checkpoint.Entry, cause Cause, reason string) {
	s.removals = append(s.removals, Removal{Entry: e, Cause: cause, Reason: reason, Frees: s.usage.Remove(&e.Checkpoint)})
}

// better sorts those that work before those that are quarantined, and newer ones first.
func better(a, b checkpoint.Entry) int {
	return cmp.Or(
		boolToInt(a.State.Quarantined())-boolToInt(b.State.Quarantined()),
		b.Checkpoint.CreatedAt.Compare(a.Checkpoint.CreatedAt),
		cmp.Compare(a.Digest, b.Digest),
	)
}

func boolToInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// drop removes from the loose ones those that why gives a reason for, the worst first.
func (s *selection) drop(cause Cause, why func(e checkpoint.Entry) string) {
	type removal struct {
		e      checkpoint.Entry
		reason string
	}
	var left []checkpoint.Entry
	var gone []removal
	for _, e := range s.loose {
		if reason := why(e); reason != "" {
			gone = append(gone, removal{e, reason})
		} else {
			left = append(left, e)
		}
	}
	s.loose = left
	for _, r := range slices.Backward(gone) {
		s.remove(r.e, cause, r.reason)
	}
}

func (s *selection) age() {
	s.drop(Age, func(e checkpoint.Entry) string {
		if s.limits.MaxAge > 0 && s.now.Sub(e.Checkpoint.CreatedAt) > s.limits.MaxAge {
			return fmt.Sprintf("captured more than %s ago", days(s.limits.MaxAge))
		}
		return ""
	})
}

func (s *selection) idle() {
	s.drop(Idle, func(e checkpoint.Entry) string {
		if s.limits.MaxIdle > 0 && e.Name == "" && s.now.Sub(lastUse(e)) > s.limits.MaxIdle {
			return fmt.Sprintf("not used for more than %s", days(s.limits.MaxIdle))
		}
		return ""
	})
}

// lastUse is when a checkpoint was of use last: restored or, if never, captured.
func lastUse(e checkpoint.Entry) time.Time {
	if e.State.LastUsed.After(e.Checkpoint.CreatedAt) {
		return e.State.LastUsed
	}
	return e.Checkpoint.CreatedAt
}

// days writes a duration of whole days as such.
func days(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d == day:
		return "a day"
	case d > day && d%day == 0:
		return fmt.Sprintf("%d days", d/day)
	}
	return d.String()
}

func (s *selection) moved() {
	all := slices.Concat(s.staying, s.loose)
	s.drop(Moved, func(old checkpoint.Entry) string {
		for _, e := range all {
			newer := e.Checkpoint.CreatedAt.After(old.Checkpoint.CreatedAt) && !e.State.Quarantined()
			if old.Name == "" && newer && movedOn(old.Checkpoint, e.Checkpoint) {
				return fmt.Sprintf("%s stands for another image now", old.Checkpoint.Source.Image)
			}
		}
		return ""
	})
}

// movedOn says that the templates were taken of containers that differ in nothing but
// what the one image name stood for.
func movedOn(a, b checkpoint.Checkpoint) bool {
	return !isResumePoint(a) && !isResumePoint(b) && a.Source.Image != "" && a.Source.Image == b.Source.Image &&
		slices.Equal(a.Fingerprint.Diff(b.Fingerprint), []string{spec.FieldImage})
}

func isResumePoint(c checkpoint.Checkpoint) bool { return c.Kind == checkpoint.ResumePoint }

// ownerOf is the group of a resume point, imageOf that of a template; what has none is
// not counted.
func ownerOf(c checkpoint.Checkpoint) string {
	if !isResumePoint(c) {
		return ""
	}
	return c.Owner
}

func imageOf(c checkpoint.Checkpoint) string {
	if isResumePoint(c) {
		return ""
	}
	return c.Source.Image + "\x00" + c.Source.Command
}

// surplus drops what is more than limit of one group.
func (s *selection) surplus(cause Cause, limit int, what string, group func(checkpoint.Checkpoint) string) {
	if limit <= 0 {
		return
	}
	seen := map[string]int{}
	s.drop(cause, func(e checkpoint.Entry) string {
		g := group(e.Checkpoint)
		if g == "" || e.Name != "" {
			return ""
		}
		if seen[g]++; seen[g] > limit {
			return fmt.Sprintf("more than %d %s", limit, what)
		}
		return ""
	})
}

func (s *selection) bytes() {
	if s.limits.MaxBytes <= 0 {
		return
	}
	for _, e := range s.byWorth() {
		if s.usage.Bytes() <= s.limits.MaxBytes {
			return
		}
		s.remove(e, Bytes, fmt.Sprintf("more than %d bytes in all", s.limits.MaxBytes))
	}
}

// byWorth returns the loose ones, what is worth least first.
func (s *selection) byWorth() []checkpoint.Entry {
	latest := map[string]string{} // of each owner, among all that stay or may
	for _, e := range slices.SortedFunc(slices.Values(slices.Concat(s.staying, s.loose)), better) {
		if owner := ownerOf(e.Checkpoint); owner != "" && latest[owner] == "" {
			latest[owner] = e.Digest
		}
	}
	worth := func(e checkpoint.Entry) int {
		switch owner := ownerOf(e.Checkpoint); {
		case e.State.Quarantined():
			return 0
		case owner == "":
			return 2
		case latest[owner] == e.Digest:
			return 3
		default:
			return 1
		}
	}
	return slices.SortedFunc(slices.Values(s.loose), func(a, b checkpoint.Entry) int {
		return cmp.Or(worth(a)-worth(b), lastUse(a).Compare(lastUse(b)), better(b, a))
	})
}

package store

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/containerd-snap/snap/checkpoint"
)

// resumePoint describes one of an owner's.
func resumePoint(owner string, at time.Time) checkpoint.Checkpoint {
	c := testMeta("x", at)
	c.Kind, c.Owner = checkpoint.ResumePoint, owner
	return c
}

func TestTheKindsAreFoundApart(t *testing.T) {
	s := newStore(t)
	template := mustRegister(t, s, testMeta("x", testTime), CommitOptions{})
	first := mustRegister(t, s, resumePoint("ns/container/a", testTime.Add(time.Minute)), CommitOptions{})
	second := mustRegister(t, s, resumePoint("ns/container/a", testTime.Add(2*time.Minute)), CommitOptions{})
	other := mustRegister(t, s, resumePoint("ns/container/b", testTime), CommitOptions{})
	look := func(key string) string {
		t.Helper()
		found, err := s.Lookup(key)
		if err != nil {
			t.Fatal(err)
		}
		var digests []string
		for _, e := range found {
			digests = append(digests, e.Digest)
		}
		return strings.Join(digests, " ")
	}
	fp := template.Checkpoint.Fingerprint.Key()
	a, b := checkpoint.OwnerKey("ns/container/a"), checkpoint.OwnerKey("ns/container/b")
	for name, test := range map[string]struct{ got, want string }{
		"by fingerprint": {look(fp), template.Digest},
		"by owner":       {look(a), second.Digest + " " + first.Digest},
		"by another":     {look(b), other.Digest},
		"by nobody":      {look(checkpoint.OwnerKey("ns/container/c")), ""},
	} {
		if test.got != test.want {
			t.Errorf("%s: %q, want %q", name, test.got, test.want)
		}
	}
	if err := s.Remove(second.Digest); err != nil {
		t.Fatal(err)
	}
	if got := look(a); got != first.Digest {
		t.Errorf("after a removal: %q", got)
	}
	if n, err := s.Sweep(); n != 0 || err != nil {
		t.Errorf("the removal left %d things (%v)", n, err)
	}
}

func TestATemplatesManifestNamesNoKind(t *testing.T) {
	s := newStore(t)
	meta := testMeta("x", testTime)
	meta.Kind = checkpoint.Template
	e := mustRegister(t, s, meta, CommitOptions{})
	raw, err := readFile(e.Dir, manifestName, maxManifest)
	if err != nil || strings.Contains(string(raw), "kind") || strings.Contains(string(raw), "owner") {
		t.Errorf("manifest is %s (%v)", raw, err)
	}
	if e.Checkpoint.Kind != checkpoint.Template {
		t.Errorf("kind is %q", e.Checkpoint.Kind)
	}
}

func TestKindAndOwnerGoTogether(t *testing.T) {
	s := newStore(t)
	for name, c := range map[string]checkpoint.Checkpoint{
		"an owned template":       {Kind: checkpoint.Template, Owner: "a"},
		"a resume point of none":  {Kind: checkpoint.ResumePoint},
		"another kind":            {Kind: "snapshot"},
		"an owner that is a mess": {Kind: checkpoint.ResumePoint, Owner: "a\nb"},
	} {
		meta := testMeta("x", testTime)
		meta.Kind, meta.Owner = c.Kind, c.Owner
		if _, err := register(s, meta, CommitOptions{}); !errors.Is(err, checkpoint.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

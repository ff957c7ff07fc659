package record

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/fixture"
)

func TestFind(t *testing.T) {
	st := fixture.Store(t)
	fixture.Start(t, st, "web", nil)
	fixture.Start(t, st, "0123456789abcdef", func(s *checkpoint.Start) { s.Namespace = "k8s.io" })
	if s, err := Find(st, "default", "web"); err != nil || s.PID != 42 {
		t.Errorf("Find = %+v, %v", s, err)
	}
	const zeros = "000000000000000000000000000000000000000000000000000"
	fixture.Start(t, st, "0123456789aaa"+zeros, func(s *checkpoint.Start) { s.Namespace, s.PID = "k8s.io", 41 })
	fixture.Start(t, st, "0123456789bbb"+zeros, func(s *checkpoint.Start) { s.Namespace, s.Name, s.PID = "k8s.io", "shop", 43 })
	fixture.Start(t, st, "ffff000000000"+zeros, func(s *checkpoint.Start) {
		s.Namespace, s.Name, s.PID, s.At = "k8s.io", "shop", 44, s.At.Add(time.Hour)
	})
	for text, pid := range map[string]int{"shop": 44, "ffff": 44, "ffff000000000" + zeros: 44, "0123456789b": 43, "0123456789a": 41} {
		if s, err := Find(st, "k8s.io", text); err != nil || s.PID != pid {
			t.Errorf("Find(%q) = %+v, %v", text, s, err)
		}
	}
	for _, c := range []struct {
		namespace, container string
		err                  error
		says                 string
	}{
		{"default", "other", checkpoint.ErrNotFound, "--runtime io.containerd.snap.v2"},
		{"k8s.io", "web", checkpoint.ErrNotFound, "did you mean web -n default?"},
		{"default", "0123456789abc", checkpoint.ErrNotFound, "did you mean 0123456789abcdef -n k8s.io?"},
		{"k8s.io", "fff", checkpoint.ErrNotFound, "did you mean ffff000000000" + zeros + " -n k8s.io?"},
		{"k8s.io", "0123456789", checkpoint.ErrAmbiguous, "give more of 0123456789"},
		{"k8s.io", "0123456789", checkpoint.ErrAmbiguous, "0123456789bbb" + zeros + " -n k8s.io"},
		{"default", "shop", checkpoint.ErrNotFound, "--runtime"},
		{"default", "a/b", checkpoint.ErrInvalid, "a/b"},
		{"", "web", checkpoint.ErrInvalid, "invalid"},
	} {
		_, err := Find(st, c.namespace, c.container)
		if !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("Find(%q, %q) = %v, want %v and %q", c.namespace, c.container, err, c.err, c.says)
		}
	}
}

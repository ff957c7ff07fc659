package record

import (
	"errors"
	"strings"
	"testing"

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
	for _, c := range []struct {
		namespace, container string
		err                  error
		says                 string
	}{
		{"default", "other", checkpoint.ErrNotFound, "--runtime io.containerd.snap.v2"},
		{"k8s.io", "web", checkpoint.ErrNotFound, "did you mean web -n default?"},
		{"default", "0123", checkpoint.ErrNotFound, "did you mean 0123456789abcdef -n k8s.io?"},
		{"default", "a/b", checkpoint.ErrInvalid, "a/b"},
		{"", "web", checkpoint.ErrInvalid, "invalid"},
	} {
		_, err := Find(st, c.namespace, c.container)
		if !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("Find(%q, %q) = %v, want %v and %q", c.namespace, c.container, err, c.err, c.says)
		}
	}
}

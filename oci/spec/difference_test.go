package spec

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/containerd-snap/snap/checkpoint"
)

func TestDifferences(t *testing.T) {
	value := func(p *string) string {
		if p == nil {
			return "-"
		}
		return *p
	}
	for name, c := range map[string]struct {
		here, there checkpoint.Fingerprint
		want        []string
	}{
		"none":             {checkpoint.Fingerprint{"args": "a"}, checkpoint.Fingerprint{"args": "a"}, nil},
		"changed":          {checkpoint.Fingerprint{"args": "a"}, checkpoint.Fingerprint{"args": "b"}, []string{"args differ: a, b"}},
		"absent and empty": {checkpoint.Fingerprint{"env.A": ""}, checkpoint.Fingerprint{"env.B": "2"}, []string{"env A differs: , -", "env B differs: -, 2"}},
		"telling first": {
			checkpoint.Fingerprint{"apparmor": "x", "env.A": "1", "image": "i", "sysctl.a": "1", "zzz": "1"},
			checkpoint.Fingerprint{"args": "y", "mount./a": "bind"},
			[]string{"the image differs: i, -", "args differ: -, y", "env A differs: 1, -", "mount /a differs: -, bind", "the AppArmor profile differs: x, -", "sysctl a differs: 1, -", "zzz differs: 1, -"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, d := range Differences(c.here, c.there) {
				got = append(got, d.Words+": "+value(d.Container)+", "+value(d.Checkpoint))
			}
			if strings.Join(got, "; ") != strings.Join(c.want, "; ") {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestExcerptShowsTheDifference(t *testing.T) {
	common := strings.Repeat("käse", 100)
	d := Differences(
		checkpoint.Fingerprint{"args": common + "ONE" + common},
		checkpoint.Fingerprint{"args": common + "TWO"},
	)[0]
	for v, want := range map[string]string{*d.Container: "ONE", *d.Checkpoint: "TWO"} {
		if n := utf8.RuneCountInString(v); n > maxValue || !strings.Contains(v, want) || !strings.HasPrefix(v, "…") || !utf8.ValidString(v) {
			t.Errorf("excerpt %q of %d characters", v, n)
		}
	}
	if !strings.HasSuffix(*d.Container, "…") || strings.HasSuffix(*d.Checkpoint, "…") {
		t.Errorf("marks of a cut: %q, %q", *d.Container, *d.Checkpoint)
	}
}

package match

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/oci/spec"
)

func TestNearest(t *testing.T) {
	with := func(name string, minutes int, change map[string]string) checkpoint.Entry {
		e := entry(name, minutes)
		maps.Copy(e.Checkpoint.Fingerprint, change)
		return e
	}
	all := []checkpoint.Entry{
		with("other-image", 9, map[string]string{spec.FieldImage: "other"}),
		with("three", 1, map[string]string{"args": "x", "env.A": "2", "env.B": "3"}),
		with("one-old", 2, map[string]string{"env.A": "2"}),
		with("equal", 8, nil),
		with("one-new", 3, map[string]string{"mount./data": "bind"}),
	}
	for _, test := range []struct {
		n    int
		want []string
	}{
		{-1, nil},
		{0, nil},
		{1, []string{"one-new true [mount /data differs]"}},
		{10, []string{
			"one-new true [mount /data differs]",
			"one-old true [env A differs]",
			"three true [args differ env A differs env B differs]",
			"other-image false [the image differs]",
		}},
	} {
		var got []string
		for _, m := range Nearest(wanted, all, test.n) {
			got = append(got, fmt.Sprintf("%s %v %v", m.Name, m.SameImage, m.Differs))
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("the nearest %d are %q, want %q", test.n, got, test.want)
		}
	}
	if got := Nearest(wanted, nil, 3); got == nil || len(got) != 0 {
		t.Errorf("of nothing, the nearest are %v; want an empty list", got)
	}
	// Two images that are unknown are not the same one.
	none := checkpoint.Fingerprint{"args": "x"}
	e := entry("one", 0)
	e.Checkpoint.Fingerprint = checkpoint.Fingerprint{"args": "y"}
	if got := Nearest(none, []checkpoint.Entry{e}, 1); len(got) != 1 || got[0].SameImage {
		t.Errorf("the nearest are %+v, want one of another image", got)
	}
}

package retain

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/oci/spec"
)

const day = 24 * time.Hour

var now = time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)

// entry is a template of 10 bytes of image i and command c, captured so many days ago.
func entry(digest string, age int, change ...func(*checkpoint.Entry)) checkpoint.Entry {
	e := checkpoint.Entry{
		Digest: digest,
		Checkpoint: checkpoint.Checkpoint{
			CreatedAt:   now.Add(-time.Duration(age) * day),
			Source:      checkpoint.Source{Image: "i:1", Command: "c"},
			Fingerprint: checkpoint.Fingerprint{"args": digest, spec.FieldImage: "chain"},
			Files:       []checkpoint.File{{Path: "pages-1.img", Size: 10}},
		},
	}
	for _, f := range change {
		f(&e)
	}
	return e
}

func named(e *checkpoint.Entry)       { e.Name = "n" + e.Digest }
func pinned(e *checkpoint.Entry)      { e.State.Pinned = true }
func quarantined(e *checkpoint.Entry) { e.State.Failures = checkpoint.QuarantineAfter }

func used(ago int) func(*checkpoint.Entry) {
	return func(e *checkpoint.Entry) { e.State.LastUsed = now.Add(-time.Duration(ago) * day) }
}

func image(name string) func(*checkpoint.Entry) {
	return func(e *checkpoint.Entry) { e.Checkpoint.Source.Image = name }
}

func point(owner string) func(*checkpoint.Entry) {
	return func(e *checkpoint.Entry) { e.Checkpoint.Kind, e.Checkpoint.Owner = checkpoint.ResumePoint, owner }
}

// chain makes the fingerprint one of args and an image's chain.
func chain(args, image string) func(*checkpoint.Entry) {
	return func(e *checkpoint.Entry) {
		e.Checkpoint.Fingerprint = checkpoint.Fingerprint{"args": args, spec.FieldImage: image}
	}
}

func TestSelect(t *testing.T) {
	all := func(entries ...checkpoint.Entry) []checkpoint.Entry { return entries }
	for name, c := range map[string]struct {
		entries []checkpoint.Entry
		limits  Limits
		// want is "DIGEST CAUSE" of each that goes, in order.
		want string
	}{
		"nothing":   {nil, Limits{MaxBytes: 1, PerImage: 1, MaxAge: 1, MaxIdle: 1, ResumePoints: 1}, ""},
		"no limits": {all(entry("a", 999), entry("b", 1, point("x")), entry("c", 2, point("x"))), Limits{}, ""},

		"age, oldest first":      {all(entry("a", 8), entry("b", 9), entry("c", 6)), Limits{MaxAge: 7 * day}, "b age, a age"},
		"age, although used":     {all(entry("a", 8, used(0))), Limits{MaxAge: 7 * day}, "a age"},
		"age, although named":    {all(entry("a", 8, named)), Limits{MaxAge: 7 * day}, "a age"},
		"age, but pinned":        {all(entry("a", 8, pinned)), Limits{MaxAge: 7 * day}, ""},
		"just the age":           {all(entry("a", 7)), Limits{MaxAge: 7 * day}, ""},
		"captured in the future": {all(entry("a", -7)), Limits{MaxAge: day, MaxIdle: day}, ""},

		"idle":          {all(entry("a", 99, used(8)), entry("b", 99, used(6)), entry("c", 99)), Limits{MaxIdle: 7 * day}, "c idle, a idle"},
		"idle, pinned":  {all(entry("a", 99, pinned)), Limits{MaxIdle: 7 * day}, ""},
		"idle, named":   {all(entry("a", 99, named)), Limits{MaxIdle: 7 * day}, ""},
		"idle, a point": {all(entry("a", 99, point("x"))), Limits{MaxIdle: 7 * day}, "a idle"},

		"the tag moved on":                {all(entry("a", 2, chain("p", "old")), entry("b", 1, chain("p", "new"))), Limits{}, "a moved"},
		"it moved twice":                  {all(entry("a", 3, chain("p", "1")), entry("b", 2, chain("p", "2")), entry("c", 1, chain("p", "3"))), Limits{}, "a moved, b moved"},
		"it moved, but the old is named":  {all(entry("a", 2, chain("p", "old"), named), entry("b", 1, chain("p", "new"))), Limits{}, ""},
		"it moved, but the old is pinned": {all(entry("a", 2, chain("p", "old"), pinned), entry("b", 1, chain("p", "new"))), Limits{}, ""},
		"it moved to a pinned one":        {all(entry("a", 2, chain("p", "old")), entry("b", 1, chain("p", "new"), pinned)), Limits{}, "a moved"},
		"it moved to one that fails":      {all(entry("a", 2, chain("p", "old")), entry("b", 1, chain("p", "new"), quarantined)), Limits{}, ""},
		"another program":                 {all(entry("a", 2, chain("p", "old")), entry("b", 1, chain("q", "new"))), Limits{}, ""},
		"another name":                    {all(entry("a", 2, chain("p", "old")), entry("b", 1, chain("p", "new"), image("i:2"))), Limits{}, ""},
		"no name":                         {all(entry("a", 2, chain("p", "old"), image("")), entry("b", 1, chain("p", "new"), image(""))), Limits{}, ""},
		"the same again":                  {all(entry("a", 2, chain("p", "c")), entry("b", 1, chain("p", "c"))), Limits{}, ""},
		"points do not move":              {all(entry("a", 2, chain("p", "old"), point("x")), entry("b", 1, chain("p", "new"), point("x"))), Limits{}, ""},

		"too many of an image":       {all(entry("a", 1), entry("b", 2), entry("c", 3), entry("d", 4, image("j"))), Limits{PerImage: 1}, "c per_image, b per_image"},
		"named ones do not count":    {all(entry("a", 1, named), entry("b", 2), entry("c", 3, named)), Limits{PerImage: 1}, ""},
		"pinned ones do not count":   {all(entry("a", 1, pinned), entry("b", 2), entry("c", 3)), Limits{PerImage: 1}, "c per_image"},
		"quarantined ones go first":  {all(entry("a", 1, quarantined), entry("b", 2)), Limits{PerImage: 1}, "a per_image"},
		"another command":            {all(entry("a", 1), entry("b", 2, func(e *checkpoint.Entry) { e.Checkpoint.Source.Command = "d" })), Limits{PerImage: 1}, ""},
		"points are not of an image": {all(entry("a", 1, point("x")), entry("b", 2, point("y"))), Limits{PerImage: 1}, ""},

		"the last two points":       {all(entry("a", 1, point("x")), entry("b", 2, point("x")), entry("c", 3, point("x")), entry("d", 9, point("y"))), Limits{ResumePoints: 2}, "c resume_points"},
		"a point that fails":        {all(entry("a", 1, point("x"), quarantined), entry("b", 2, point("x")), entry("c", 3, point("x"))), Limits{ResumePoints: 2}, "a resume_points"},
		"templates are no points":   {all(entry("a", 1), entry("b", 2)), Limits{ResumePoints: 1}, ""},
		"a point with a name stays": {all(entry("a", 1, point("x")), entry("b", 2, point("x"), named)), Limits{ResumePoints: 1}, ""},

		"bytes: the longest unused":   {all(entry("a", 9, used(1)), entry("b", 2), entry("c", 3)), Limits{MaxBytes: 20}, "c bytes"},
		"bytes: just enough":          {all(entry("a", 9), entry("b", 2)), Limits{MaxBytes: 20}, ""},
		"bytes: all of it":            {all(entry("a", 2), entry("b", 1)), Limits{MaxBytes: 5}, "a bytes, b bytes"},
		"bytes: named as well":        {all(entry("a", 2, named), entry("b", 1)), Limits{MaxBytes: 10}, "a bytes"},
		"bytes: pinned ones count":    {all(entry("a", 2, pinned), entry("b", 1)), Limits{MaxBytes: 10}, "b bytes"},
		"bytes: but stay":             {all(entry("a", 2, pinned)), Limits{MaxBytes: 5}, ""},
		"bytes: what is gone is free": {all(entry("a", 9), entry("b", 1), entry("c", 2)), Limits{MaxBytes: 20, MaxAge: 7 * day}, "a age"},
		"bytes: in the order of worth": {
			all(entry("a", 1, point("x")), entry("b", 2, point("x")), entry("c", 3), entry("d", 4, quarantined), entry("e", 5, used(1))), Limits{MaxBytes: 1},
			"d bytes, b bytes, c bytes, e bytes, a bytes",
		},
		"bytes: the last good point": {
			all(entry("a", 1, point("x"), quarantined), entry("b", 2, point("x")), entry("c", 1)), Limits{MaxBytes: 10},
			"a bytes, c bytes",
		},
	} {
		var got []string
		for _, r := range Select(c.entries, c.limits, now, nil) {
			got = append(got, fmt.Sprintf("%s %s", r.Entry.Digest, r.Cause))
			if r.Reason == "" || strings.HasSuffix(r.Reason, ".") {
				t.Errorf("%s: the reason is %q", name, r.Reason)
			}
		}
		if s := strings.Join(got, ", "); s != c.want {
			t.Errorf("%s: %q goes, want %q", name, s, c.want)
		}
	}
}

func TestSelectSpares(t *testing.T) {
	entries := []checkpoint.Entry{entry("a", 9), entry("b", 8), entry("c", 7)}
	spare := func(e checkpoint.Entry) bool { return e.Digest == "a" }
	got := Select(entries, Limits{MaxBytes: 10}, now, spare)
	if len(got) != 2 || got[0].Entry.Digest != "b" || got[1].Entry.Digest != "c" {
		t.Errorf("%+v", got)
	}
}

// Whatever there is, in whatever order: pins stay, nothing goes twice, what is left is
// within the budgets, and then nothing more goes.
func TestSelectHolds(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var entries []checkpoint.Entry
		for i := range r.IntN(12) {
			e := entry(strconv.Itoa(i), r.IntN(40), image([]string{"", "i", "j"}[r.IntN(3)]), chain(strconv.Itoa(r.IntN(2)), strconv.Itoa(r.IntN(3))))
			for _, f := range []func(*checkpoint.Entry){pinned, named, quarantined, used(r.IntN(40)), point(strconv.Itoa(r.IntN(2)))} {
				if r.IntN(4) == 0 {
					f(&e)
				}
			}
			entries = append(entries, e)
		}
		l := Limits{
			MaxBytes: int64(r.IntN(100)), PerImage: r.IntN(3), MaxAge: time.Duration(r.IntN(40)) * day,
			MaxIdle: time.Duration(r.IntN(40)) * day, ResumePoints: r.IntN(3),
		}
		removals := Select(entries, l, now, nil)
		left := slices.Clone(entries)
		var bytes, fixed int64
		for _, x := range removals {
			if x.Entry.State.Pinned {
				t.Fatalf("%+v: a pinned one goes", l)
			}
			before := len(left)
			left = slices.DeleteFunc(left, func(e checkpoint.Entry) bool { return e.Digest == x.Entry.Digest })
			if len(left) != before-1 {
				t.Fatalf("%+v: %s goes twice", l, x.Entry.Digest)
			}
		}
		for _, e := range left {
			bytes += e.Checkpoint.Bytes()
			if e.State.Pinned {
				fixed += e.Checkpoint.Bytes()
			}
		}
		if l.MaxBytes > 0 && bytes > max(l.MaxBytes, fixed) {
			t.Fatalf("%+v: %d bytes are left, %d of them pinned", l, bytes, fixed)
		}
		if again := Select(left, l, now, nil); len(again) > 0 {
			t.Fatalf("%+v: and then %+v", l, again)
		}
		r.Shuffle(len(entries), func(i, j int) { entries[i], entries[j] = entries[j], entries[i] })
		if other := Select(entries, l, now, nil); fmt.Sprint(other) != fmt.Sprint(removals) {
			t.Fatalf("%+v: the order of the entries matters", l)
		}
	}
}

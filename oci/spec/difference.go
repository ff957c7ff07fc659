package spec

import (
	"cmp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/containerd-snap/snap/checkpoint"
)

// maxValue bounds a value in a Difference, in characters; a long one is cut to the part
// around the place where the two begin to differ.
const maxValue = 80

// Difference is a field in which a container and a checkpoint differ.
type Difference struct {
	// Field is the fingerprint's.
	Field string `json:"field"`
	// Words say that it differs, as Describe does.
	Words string `json:"words"`
	// Container and Checkpoint are the two values, bounded; null where one has none.
	Container  *string `json:"container"`
	Checkpoint *string `json:"checkpoint"`
}

// significance orders fields from what makes it another program to what is a detail;
// those that are not named come last.
var significance = []string{
	FieldImage, fieldArgs, fieldCwd, fieldUser, fieldGroups, fieldEnv, fieldTerminal, fieldNamespace, fieldMount,
	fieldCapabilities, fieldSeccomp,
}

// Differences returns the fields in which a container and a checkpoint differ, the most
// telling one first.
func Differences(container, of checkpoint.Fingerprint) []Difference {
	names := container.Diff(of)
	slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(rank(a), rank(b)) })
	all := make([]Difference, 0, len(names))
	for _, name := range names {
		d := Difference{Field: name, Words: Describe(name)}
		a, here := container[name]
		b, there := of[name]
		at := commonPrefix(a, b)
		if here {
			v := excerpt(a, at)
			d.Container = &v
		}
		if there {
			v := excerpt(b, at)
			d.Checkpoint = &v
		}
		all = append(all, d)
	}
	return all
}

func rank(field string) int {
	for i, f := range significance {
		if field == f || strings.HasSuffix(f, ".") && strings.HasPrefix(field, f) {
			return i
		}
	}
	return len(significance)
}

// commonPrefix is the number of bytes that two texts have in common at their beginning.
func commonPrefix(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// excerpt cuts a text to maxValue characters around a place in it.
func excerpt(s string, at int) string {
	if utf8.RuneCountInString(s) <= maxValue {
		return s
	}
	runes := []rune(s)
	const before = maxValue / 4
	from := max(utf8.RuneCountInString(s[:min(at, len(s))])-before, 0)
	from = min(from, len(runes)-maxValue)
	to := from + maxValue
	out := string(runes[from:to])
	if from > 0 {
		out = "…" + string(runes[from+1:to])
	}
	if to < len(runes) {
		_, last := utf8.DecodeLastRuneInString(out)
		out = out[:len(out)-last] + "…"
	}
	return out
}

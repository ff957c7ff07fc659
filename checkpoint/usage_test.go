package checkpoint

import "testing"

// TestUsage: what checkpoints share counts once, and goes with the last that has it.
func TestUsage(t *testing.T) {
	page := File{Path: "pages-mapped-1.img", Size: 1 << 40, Sparse: true, Stored: 100, SHA256: "a"}
	base := Checkpoint{Files: []File{page, {Path: "mm-1.img", Size: 5, SHA256: "b"}}, Diff: Diff{Bytes: 7}}
	page.Shared = true
	later := Checkpoint{Files: []File{page, {Path: "mm-1.img", Size: 5, SHA256: "b"}}}
	if got := later.SharedBytes(); got != 100 {
		t.Errorf("%d bytes are shared", got)
	}
	var u Usage
	for _, step := range []struct {
		what      string
		got, want int64
	}{
		{"the base takes", u.Add(&base), 112},
		{"the later one takes", u.Add(&later), 5},
		{"both take", u.Bytes(), 117},
		{"without the base is freed", u.Remove(&base), 12},
		{"without both is freed", u.Remove(&later), 105},
		{"none takes", u.Bytes(), 0},
	} {
		if step.got != step.want {
			t.Errorf("%s %d bytes, want %d", step.what, step.got, step.want)
		}
	}
}

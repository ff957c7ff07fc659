package tally

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/retain"
)

func TestAddStart(t *testing.T) {
	const boot, restore = checkpoint.Boot, checkpoint.Restore
	fits := checkpoint.Decision{Action: restore, Class: checkpoint.ClassFits}
	for name, c := range map[string]struct {
		record checkpoint.Start
		want   Start
	}{
		"boot":     {checkpoint.Start{Decision: checkpoint.Decision{Action: boot, Class: checkpoint.ClassNone}, Outcome: boot}, Start{boot, checkpoint.ClassNone, Booted}},
		"restore":  {checkpoint.Start{Decision: fits, Outcome: restore}, Start{restore, checkpoint.ClassFits, Restored}},
		"fallback": {checkpoint.Start{Decision: fits, Outcome: boot, Fallback: "why"}, Start{restore, checkpoint.ClassFits, FellBack}},
		"failed":   {checkpoint.Start{Decision: fits, Outcome: restore, Error: "why"}, Start{restore, checkpoint.ClassFits, Failed}},
		"early":    {checkpoint.Start{Error: "why"}, Start{"", checkpoint.ClassOther, Failed}},
		"odd":      {checkpoint.Start{Decision: checkpoint.Decision{Action: boot, Class: "of another version"}, Outcome: boot}, Start{boot, checkpoint.ClassOther, Booted}},
	} {
		var got Tally
		c.record.Phases = []checkpoint.Phase{{Name: "a", MS: 20}, {Name: "b", MS: 6}}
		got.AddStart(c.record)
		got.AddStart(c.record)
		if len(got.Starts) != 1 || got.Starts[c.want] != 2 {
			t.Errorf("%s: %v", name, got.Starts)
		}
		if h := got.StartTimes[c.want.Outcome]; h.Count != 2 || h.Sum != 52*time.Millisecond || h.Buckets[3] != 2 {
			t.Errorf("%s: %+v", name, h)
		}
	}
}

// full is a tally with one of each.
func full() Tally {
	var t Tally
	for _, class := range checkpoint.Classes {
		for _, action := range []checkpoint.Action{checkpoint.Boot, checkpoint.Restore} {
			for _, outcome := range []checkpoint.Start{{Outcome: checkpoint.Boot}, {Outcome: checkpoint.Restore}, {Error: "e"}} {
				outcome.Decision = checkpoint.Decision{Action: action, Class: class}
				outcome.Phases = []checkpoint.Phase{{MS: 1e6}}
				t.AddStart(outcome)
			}
		}
	}
	for _, kind := range Kinds {
		t.AddCapture(kind, nil, time.Second)
		t.AddCapture(kind, &checkpoint.Checkpoint{Timing: checkpoint.Timing{PauseMS: 0.5}}, time.Second)
	}
	for i, cause := range retain.Causes {
		t.AddPruned(cause, int64(i))
	}
	t.Quarantined = 3
	return t
}

func TestEncode(t *testing.T) {
	for name, want := range map[string]Tally{"full": full(), "empty": {}} {
		raw, err := want.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if len(raw) > 16<<10 {
			t.Errorf("%s: %d bytes", name, len(raw))
		}
		if got, err := Decode(raw); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, want)
		}
	}
}

func TestDecode(t *testing.T) {
	for _, unknown := range []string{
		`{"starts":{"boot/new/boot":1,"boot":1,"a/b/c/d":1},"captures":{"clone/registered":1},"pruned":{"mood":1},"startTimes":{"x":{}},"new":[1]}`,
	} {
		if got, err := Decode([]byte(unknown)); err != nil || !reflect.DeepEqual(got, Tally{}) {
			t.Errorf("%s: %+v, %v", unknown, got, err)
		}
	}
	for _, bad := range []string{
		``, `{`, `[]`, `{} {}`, `{"quarantined":-1}`, `{"prunedBytes":9223372036854775807}`, `{"starts":{"boot/none/boot":-1}}`,
		`{"captureTimes":{"count":1,"buckets":[1,1]}}`, `{"pauseTimes":{"micros":-1}}`,
	} {
		if _, err := Decode([]byte(bad)); !errors.Is(err, checkpoint.ErrInvalid) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	var more Tally
	more.AddPruned("mood", 5)
	more.AddCapture("", nil, 0)
	if more.PrunedBytes != 0 || len(more.Pruned) != 0 || more.Captures[Capture{checkpoint.Template, Refused}] != 1 {
		t.Errorf("%+v", more)
	}
}

func FuzzDecode(f *testing.F) {
	whole := full()
	raw, err := whole.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(`{"captureTimes":{"count":1,"buckets":[1]}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, err := Decode(raw)
		if err != nil {
			return
		}
		again, err := a.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if b, err := Decode(again); err != nil || !reflect.DeepEqual(a, b) {
			t.Errorf("%+v became %+v, %v", a, b, err)
		}
	})
}

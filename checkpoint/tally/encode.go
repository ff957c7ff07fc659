package tally

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/retain"
)

// kept is a tally as it is on disk: keys of several parts are joined by slashes.
type kept struct {
	Starts       map[string]int64          `json:"starts,omitempty"`
	StartTimes   map[Outcome]keptHistogram `json:"startTimes,omitempty"`
	Captures     map[string]int64          `json:"captures,omitempty"`
	CaptureTimes keptHistogram             `json:"captureTimes"`
	PauseTimes   keptHistogram             `json:"pauseTimes"`
	Quarantined  int64                     `json:"quarantined,omitempty"`
	Pruned       map[retain.Cause]int64    `json:"pruned,omitempty"`
	PrunedBytes  int64                     `json:"prunedBytes,omitempty"`
}

type keptHistogram struct {
	Buckets []int64 `json:"buckets,omitempty"`
	Count   int64   `json:"count"`
	// Micros is the sum.
	Micros int64 `json:"micros"`
}

// Encode returns the tally as it is kept on disk.
func (t *Tally) Encode() ([]byte, error) {
	k := kept{
		Starts:       map[string]int64{},
		StartTimes:   map[Outcome]keptHistogram{},
		Captures:     map[string]int64{},
		CaptureTimes: t.CaptureTimes.encode(),
		PauseTimes:   t.PauseTimes.encode(),
		Quarantined:  t.Quarantined,
		Pruned:       t.Pruned,
		PrunedBytes:  t.PrunedBytes,
	}
	for s, n := range t.Starts {
		k.Starts[strings.Join([]string{string(s.Decision), string(s.Reason), string(s.Outcome)}, "/")] = n
	}
	for o, h := range t.StartTimes {
		k.StartTimes[o] = h.encode()
	}
	for c, n := range t.Captures {
		k.Captures[string(c.Kind)+"/"+string(c.Result)] = n
	}
	return json.Marshal(k)
}

func (h *Histogram) encode() keptHistogram {
	return keptHistogram{Buckets: h.Buckets, Count: h.Count, Micros: h.Sum.Microseconds()}
}

// Decode reads what Encode wrote, of this version or another. What this version does not
// know it leaves out. An error wraps checkpoint.ErrInvalid.
func Decode(raw []byte) (Tally, error) {
	var k kept
	err := json.Unmarshal(raw, &k)
	var t Tally
	if err == nil {
		err = k.into(&t)
	}
	if err != nil {
		return Tally{}, fmt.Errorf("%w tally: %w", checkpoint.ErrInvalid, err)
	}
	return t, nil
}

var errNegative = errors.New("a count is negative or too large")

// most bounds a count: more is no count of anything, and sums must not overflow.
const most = 1 << 53

func (k *kept) into(t *Tally) error {
	ok := true
	count := func(n int64) int64 {
		ok = ok && n >= 0 && n <= most
		return n
	}
	for key, n := range k.Starts {
		p := strings.Split(key, "/")
		if len(p) != 3 {
			continue
		}
		s := Start{Decision: checkpoint.Action(p[0]), Reason: checkpoint.Class(p[1]), Outcome: Outcome(p[2])}
		if slices.Contains([]checkpoint.Action{"", checkpoint.Boot, checkpoint.Restore}, s.Decision) &&
			slices.Contains(checkpoint.Classes, s.Reason) && slices.Contains(Outcomes, s.Outcome) {
			add(&t.Starts, s, count(n))
		}
	}
	for key, n := range k.Captures {
		kind, result, _ := strings.Cut(key, "/")
		c := Capture{Kind: checkpoint.Kind(kind), Result: Result(result)}
		if slices.Contains(Kinds, c.Kind) && slices.Contains(Results, c.Result) {
			add(&t.Captures, c, count(n))
		}
	}
	for cause, n := range k.Pruned {
		if slices.Contains(retain.Causes, cause) {
			add(&t.Pruned, cause, count(n))
		}
	}
	t.Quarantined, t.PrunedBytes = count(k.Quarantined), count(k.PrunedBytes)
	t.CaptureTimes, t.PauseTimes = k.CaptureTimes.decode(count), k.PauseTimes.decode(count)
	for o, h := range k.StartTimes {
		if slices.Contains(Outcomes, o) {
			if t.StartTimes == nil {
				t.StartTimes = map[Outcome]*Histogram{}
			}
			d := h.decode(count)
			t.StartTimes[o] = &d
		}
	}
	if !ok {
		return errNegative
	}
	return nil
}

func (h keptHistogram) decode(count func(int64) int64) Histogram {
	d := Histogram{Count: count(h.Count), Sum: time.Duration(count(h.Micros)) * time.Microsecond}
	left := d.Count
	for i := range min(len(h.Buckets), len(Bounds)) {
		n := count(h.Buckets[i])
		left -= n
		d.Buckets = append(d.Buckets, n)
	}
	count(left) // no more in the buckets than in all
	return d
}

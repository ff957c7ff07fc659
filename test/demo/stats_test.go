package main

import (
	"testing"
	"time"
)

// answersAt are samples with counters from 1, at milliseconds after begin.
func answersAt(begin time.Time, ms ...int) []sample {
	samples := make([]sample, len(ms))
	for i, m := range ms {
		samples[i] = sample{begin.Add(time.Duration(m) * time.Millisecond), i + 1}
	}
	return samples
}

func TestLongestGap(t *testing.T) {
	begin := time.Now()
	for _, tc := range []struct {
		at   []int
		want time.Duration
	}{
		{nil, 0}, {[]int{5}, 0}, {[]int{5, 9}, 4 * time.Millisecond}, {[]int{0, 3, 230, 234}, 227 * time.Millisecond},
	} {
		if got := longestGap(answersAt(begin, tc.at...)); got != tc.want {
			t.Errorf("longestGap of answers at %v = %s, want %s", tc.at, got, tc.want)
		}
	}
}

func TestNextAfter(t *testing.T) {
	begin := time.Now()
	samples := answersAt(begin, 10, 20, 250, 260)
	for _, tc := range []struct {
		moment int
		want   counters
		ok     bool
	}{
		{5, counters{}, false},
		{10, counters{}, false}, // the first answer may have been given afterwards
		{15, counters{2, 3}, true},
		{21, counters{3, 4}, true},
		{250, counters{3, 4}, true},
		{255, counters{4, 5}, true},
		{261, counters{}, false},
	} {
		// As it is read from JSON: without the monotonic clock.
		moment := begin.Add(time.Duration(tc.moment) * time.Millisecond).UTC().Round(0)
		got, ok := nextAfter(samples, moment)
		if got != tc.want || ok != tc.ok {
			t.Errorf("nextAfter %d ms = %v, %t, want %v, %t", tc.moment, got, ok, tc.want, tc.ok)
		}
	}
	if _, ok := nextAfter(nil, begin); ok {
		t.Error("nextAfter of no samples is known")
	}
}

func TestCountersContain(t *testing.T) {
	c := counters{3, 4}
	for n, want := range map[int]bool{2: false, 3: true, 4: true, 5: false} {
		if got := c.contains(n); got != want {
			t.Errorf("%v contains %d: %t", c, n, got)
		}
	}
}

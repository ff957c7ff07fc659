package main

import (
	"slices"
	"time"
)

// longestGap is the longest time between two answers; samples are in order of time.
func longestGap(samples []sample) time.Duration {
	var longest time.Duration
	for i := 1; i < len(samples); i++ {
		longest = max(longest, samples[i].at.Sub(samples[i-1].at))
	}
	return longest
}

// counters is a range of a program's counter, ends included.
type counters struct{ from, to int }

func (c counters) contains(n int) bool { return c.from <= n && n <= c.to }

// nextAfter is what a program that was captured at a moment may count as its
// next answer, as far as one client could see: it had given from-1 answers for
// certain, and to-1 at most, since one may have been under way. ok is false if
// the client got no answer before, or none after the moment.
func nextAfter(samples []sample, moment time.Time) (next counters, ok bool) {
	i, _ := slices.BinarySearchFunc(samples, moment, func(s sample, m time.Time) int { return s.at.Compare(m) })
	if i == 0 || i == len(samples) {
		return counters{}, false
	}
	return counters{from: samples[i-1].counter + 1, to: samples[i].counter + 1}, true
}

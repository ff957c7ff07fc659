package measure

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Median is the middle of the values, or the mean of the two in the middle; 0 of none.
func Median(values []float64) float64 {
	n := len(values)
	if n == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	if n%2 == 1 {
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}

// Percentile is the smallest of the values that p percent of them do not exceed; 0 of none.
func Percentile(values []float64, p float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	n := int(math.Ceil(p / 100 * float64(len(sorted))))
	return sorted[max(n, 1)-1]
}

// Milliseconds is a duration as figures have it, to the microsecond.
func Milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// Ratio writes whole/part with two digits at least; "?" if that is not known.
func Ratio(whole, part float64) string {
	if whole <= 0 || part <= 0 {
		return "?"
	}
	r := whole / part
	if r < 9.95 {
		return strconv.FormatFloat(r, 'f', 1, 64)
	}
	return strconv.FormatFloat(r, 'f', 0, 64)
}

// Duration writes milliseconds with three digits, as "4.71 ms", "212 ms" or "5.12 s".
func Duration(ms float64) string {
	unit := "ms"
	if ms >= 999.5 {
		ms, unit = ms/1000, "s"
	}
	digits := 2
	switch {
	case ms >= 99.95:
		digits = 0
	case ms >= 9.995:
		digits = 1
	}
	return strconv.FormatFloat(ms, 'f', digits, 64) + " " + unit
}

// Durations writes several, as "212 ms, 198 ms".
func Durations(ms []float64) string {
	all := make([]string, len(ms))
	for i, v := range ms {
		all[i] = Duration(v)
	}
	return strings.Join(all, ", ")
}

package measure

import (
	"slices"
	"testing"
)

func TestMedian(t *testing.T) {
	for _, tc := range []struct {
		values []float64
		want   float64
	}{
		{nil, 0}, {[]float64{3}, 3}, {[]float64{4, 1}, 2.5}, {[]float64{9, 1, 2}, 2}, {[]float64{8, 1, 4, 2}, 3},
	} {
		before := slices.Clone(tc.values)
		if got := Median(tc.values); got != tc.want {
			t.Errorf("Median(%v) = %v, want %v", tc.values, got, tc.want)
		}
		if !slices.Equal(before, tc.values) {
			t.Errorf("median sorted its argument: %v", tc.values)
		}
	}
}

func TestPercentile(t *testing.T) {
	values := []float64{5, 1, 4, 2, 3}
	for p, want := range map[float64]float64{0: 1, 20: 1, 21: 2, 50: 3, 95: 5, 100: 5} {
		if got := Percentile(values, p); got != want {
			t.Errorf("Percentile(%v) = %v, want %v", p, got, want)
		}
	}
	if got := Percentile(nil, 50); got != 0 {
		t.Errorf("Percentile of none = %v", got)
	}
}

func TestDuration(t *testing.T) {
	for ms, want := range map[float64]string{
		0: "0.00 ms", 0.42: "0.42 ms", 4.714: "4.71 ms", 9.996: "10.0 ms", 31.84: "31.8 ms",
		99.96: "100 ms", 175.2: "175 ms", 999.4: "999 ms", 999.6: "1.00 s", 2531: "2.53 s", 61000: "61.0 s",
	} {
		if got := Duration(ms); got != want {
			t.Errorf("Duration(%v) = %q, want %q", ms, got, want)
		}
	}
}

func TestRatio(t *testing.T) {
	for _, tc := range []struct {
		whole, part float64
		want        string
	}{
		{4712, 210, "22"}, {846, 210, "4.0"}, {9.94, 1, "9.9"}, {9.96, 1, "10"}, {1, 2, "0.5"},
		{0, 1, "?"}, {1, 0, "?"}, {-1, 1, "?"},
	} {
		if got := Ratio(tc.whole, tc.part); got != tc.want {
			t.Errorf("Ratio(%v, %v) = %q, want %q", tc.whole, tc.part, got, tc.want)
		}
	}
}

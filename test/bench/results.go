package main

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/containerd-snap/snap/test/measure"
)

// results is what was measured. Times are milliseconds, sizes bytes; null stands for what was
// not measured. A time is a median, from before the command to the program's first answer where
// nothing else is said.
type results struct {
	// Quick: measured for whether it works; the figures are of single runs.
	Quick bool         `json:"quick"`
	Host  measure.Host `json:"host"`
	// DroppedBy says how the page cache was emptied for what is called cold.
	DroppedBy string              `json:"page_cache_dropped_by,omitempty"`
	Boot      *bootResult         `json:"boot,omitempty"`
	Restore   map[string]*restore `json:"restore,omitempty"`
	Clones    map[string]*clones  `json:"clones,omitempty"`
	Scale     map[string]*scale   `json:"scale,omitempty"`
	Capture   map[string]*capture `json:"capture,omitempty"`
	Phases    map[string][]phase  `json:"phases,omitempty"`
	Goals     []goal              `json:"goals,omitempty"`
	// Failures are measurements that failed, in words.
	Failures []string `json:"failures,omitempty"`
}

func newResults(quick bool) *results {
	return &results{
		Quick: quick, Restore: map[string]*restore{}, Clones: map[string]*clones{},
		Scale: map[string]*scale{}, Capture: map[string]*capture{}, Phases: map[string][]phase{},
	}
}

func (r *results) write(name string) error {
	r.Goals = r.goals()
	return measure.WriteJSON(name, r)
}

// ratio is one time over another, pair by pair.
type ratio struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// ratioOf divides the values of the same round; nil where there are none.
func ratioOf(whole, part []float64) *ratio {
	var all []float64
	for i := range min(len(whole), len(part)) {
		if part[i] > 0 {
			all = append(all, whole[i]/part[i])
		}
	}
	if len(all) == 0 {
		return nil
	}
	return &ratio{round(measure.Median(all)), round(slices.Min(all)), round(slices.Max(all))}
}

// round keeps three decimals.
func round(v float64) float64 { return math.Round(v*1000) / 1000 }

// median is nil of none.
func median(values []float64) *float64 {
	if len(values) == 0 {
		return nil
	}
	m := round(measure.Median(values))
	return &m
}

// size writes a number of MiB.
func size(mib int) string {
	if mib >= 1024 && mib%1024 == 0 {
		return fmt.Sprintf("%d GB", mib/1024)
	}
	return fmt.Sprintf("%d MB", mib)
}

// sizeName is it in the results and in names: "64m", "1g".
func sizeName(mib int) string {
	return strings.ToLower(strings.TrimSuffix(strings.ReplaceAll(size(mib), " ", ""), "B"))
}

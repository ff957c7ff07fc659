package main

import (
	"fmt"

	"github.com/containerd-snap/snap/test/measure"
)

// goal is what was promised, and what came of it.
type goal struct {
	What string `json:"what"`
	Want string `json:"want"`
	Got  string `json:"got"`
	// Met is null where it was not measured.
	Met *bool `json:"met"`
}

// The goals. Sizes and factors are those that docs/performance.md promises.
const (
	stockFactor  = 4.0
	bootFactor   = 30.0
	growthFactor = 1.3
	cloneCount   = "20"
	cloneBytes   = 10e6
	smallSize    = 256
	largeSize    = 2048
)

// goals compares what was measured with what was promised.
func (r *results) goals() []goal {
	return []goal{r.stockGoal(), r.bootedGoal(), r.growthGoal(), r.cloneGoal(), r.bootGoal()}
}

func judged(g goal, met bool, format string, args ...any) goal {
	g.Met, g.Got = &met, fmt.Sprintf(format, args...)
	return g
}

func (r *results) stockGoal() goal {
	g := goal{What: "restore of the Python program, to its first answer, beside the stock runtime's", Want: "a quarter, or less", Got: "not measured"}
	p := r.Restore["python"]
	if p == nil || p.StockMS == nil {
		return g
	}
	mode, ms := p.best()
	if q := p.Ratios["stock/"+mode]; q != nil {
		return judged(g, q.Median >= stockFactor, "1/%.1f (1/%.1f to 1/%.1f): %s beside %s", q.Median, q.Min, q.Max, measure.Duration(*ms), measure.Duration(*p.StockMS))
	}
	return g
}

func (r *results) bootedGoal() goal {
	g := goal{What: "the same beside its boot", Want: "1/30, or less", Got: "not measured"}
	p := r.Restore["python"]
	if p == nil || p.ColdMS == nil {
		return g
	}
	mode, ms := p.best()
	if q := p.Ratios["cold/"+mode]; q != nil {
		return judged(g, q.Median >= bootFactor, "1/%.0f (1/%.0f to 1/%.0f): %s beside %s", q.Median, q.Min, q.Max, measure.Duration(*ms), measure.Duration(*p.ColdMS))
	}
	return g
}

func (r *results) growthGoal() goal {
	g := goal{What: "mapped restore of " + size(largeSize) + ", beside that of " + size(smallSize), Want: "1.3 times as long, or less", Got: "not measured"}
	small, large := r.Scale[sizeName(smallSize)], r.Scale[sizeName(largeSize)]
	if small == nil || large == nil || small.MappedMS == nil || large.MappedMS == nil {
		return g
	}
	q := ratioOf(large.Runs["mapped"]["0"], small.Runs["mapped"]["0"])
	return judged(g, q.Median <= growthFactor, "%.2f times (%.2f to %.2f): %s beside %s", q.Median, q.Min, q.Max, measure.Duration(*large.MappedMS), measure.Duration(*small.MappedMS))
}

func (r *results) cloneGoal() goal {
	g := goal{What: "memory that each of " + cloneCount + " clones of the Python program adds", Want: "less than 10 MB", Got: "not measured"}
	c := r.Clones[cloneCount]
	if c == nil {
		return g
	}
	return judged(g, float64(c.AddedBytesPerClone) < cloneBytes, "%s, of which %s are its shim", megabytes(c.AddedBytesPerClone), megabytes(c.ShimPSSBytes))
}

func (r *results) bootGoal() goal {
	g := goal{What: "boot of a trivial container (`ctr run --rm`), beside the stock runtime's", Want: "shorter", Got: "not measured"}
	b := r.Boot
	if b == nil || b.Ratio == nil {
		return g
	}
	return judged(g, b.Ratio.Median > 1, "1/%.2f (1/%.2f to 1/%.2f): %s beside %s", b.Ratio.Median, b.Ratio.Min, b.Ratio.Max, measure.Duration(*b.SnapMS), measure.Duration(*b.RuncMS))
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

// written is a time for people; a dash where there is none.
func written(ms *float64) string {
	if ms == nil {
		return "–"
	}
	return measure.Duration(*ms)
}

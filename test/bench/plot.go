package main

import (
	"errors"
	"fmt"
	"image/color"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	_ "gonum.org/v1/plot/vg/vgsvg" // draws SVG
)

// The colours are those of Okabe and Ito, which people with any colour vision tell apart.
var colours = map[string]color.Color{
	"boot": color.RGBA{0x99, 0x99, 0x99, 0xff}, "stock": color.RGBA{0xd5, 0x5e, 0x00, 0xff}, "runc by hand": color.RGBA{0xe6, 0x9f, 0x00, 0xff},
	"copy": color.RGBA{0x56, 0xb4, 0xe9, 0xff}, "lazy": color.RGBA{0x00, 0x72, 0xb2, 0xff}, "mapped": color.RGBA{0x00, 0x9e, 0x73, 0xff},
	"CRIU alone": color.RGBA{0xcc, 0x79, 0xa7, 0xff}, "pause": color.RGBA{0xcc, 0x79, 0xa7, 0xff},
	"p50, at once": color.RGBA{0x00, 0x9e, 0x73, 0xff}, "p95, at once": color.RGBA{0xd5, 0x5e, 0x00, 0xff},
	"p50, in sequence": color.RGBA{0x56, 0xb4, 0xe9, 0xff}, "p95, in sequence": color.RGBA{0x00, 0x72, 0xb2, 0xff},
}

const (
	width  = 20 * vg.Centimeter
	height = 11 * vg.Centimeter
)

// plot draws what was measured into dir.
func (r *results) plot(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return errors.Join(
		r.plotRestores(filepath.Join(dir, "restore.svg")),
		r.plotScale(filepath.Join(dir, "scale.svg")),
		r.plotClones(filepath.Join(dir, "clones.svg")),
		r.plotCapture(filepath.Join(dir, "capture.svg")),
	)
}

// line is a curve, or the bars of one mode. A point that was not measured is left out.
type line struct {
	name   string
	points plotter.XYs
}

func (l *line) add(x float64, ms *float64) {
	if ms != nil && *ms > 0 {
		l.points = append(l.points, plotter.XY{X: x, Y: *ms})
	}
}

// newPlot has a logarithmic axis of milliseconds.
func newPlot(title string) *plot.Plot {
	p := plot.New()
	p.Title.Text = title
	p.Title.Padding = vg.Points(8)
	p.Y.Label.Text = "milliseconds"
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, decades{}
	p.Legend.Top, p.Legend.Left = true, true
	p.BackgroundColor = color.White
	grid := plotter.NewGrid()
	grid.Vertical.Width = 0
	grid.Horizontal.Color = color.Gray{0xdd}
	p.Add(grid)
	return p
}

// decades puts a mark at 1, 2 and 5 of each decade.
type decades struct{}

func (decades) Ticks(least, most float64) []plot.Tick {
	var ticks []plot.Tick
	for decade := 1e-3; decade <= most; decade *= 10 {
		for _, n := range []float64{1, 2, 5} {
			if v := n * decade; v >= least && v <= most {
				ticks = append(ticks, plot.Tick{Value: v, Label: fmt.Sprintf("%g", v)})
			}
		}
	}
	return ticks
}

// curves draws lines with points.
func curves(p *plot.Plot, lines []line) (drawn bool, err error) {
	for _, l := range lines {
		if len(l.points) == 0 {
			continue
		}
		c, dots, err := plotter.NewLinePoints(l.points)
		if err != nil {
			return drawn, fmt.Errorf("draw %s: %w", l.name, err)
		}
		c.Color, c.Width = colours[l.name], vg.Points(1.8)
		dots.Color, dots.Radius = colours[l.name], vg.Points(2.5)
		p.Add(c, dots)
		p.Legend.Add(l.name, c, dots)
		p.Y.Min = min(p.Y.Min, 10)
		drawn = true
	}
	return drawn, nil
}

// room leaves place for the legend above the highest point.
func room(p *plot.Plot) { p.Y.Max *= 4 }

func (r *results) plotRestores(file string) error {
	p := newPlot("Time to the first answer, page cache warm (shorter is better)")
	p.Y.Min, p.Y.Max = 10, 10
	modes := []struct {
		name string
		of   func(*restore) *float64
	}{
		{"boot", func(r *restore) *float64 { return r.ColdMS }}, {"stock", func(r *restore) *float64 { return r.StockMS }},
		{"runc by hand", func(r *restore) *float64 { return r.RuncMS }}, {"copy", func(r *restore) *float64 { return r.CopyMS }},
		{"lazy", func(r *restore) *float64 { return r.LazyMS }}, {"mapped", func(r *restore) *float64 { return r.MappedMS }},
		{"CRIU alone", func(r *restore) *float64 { return first(r.CRIUMappedMS, r.CRIUMS) }},
	}
	var ticks []plot.Tick
	shown := map[string]bool{}
	for _, name := range programNames() {
		one := r.Restore[name]
		if one == nil {
			continue
		}
		at := float64(len(ticks))
		ticks = append(ticks, plot.Tick{Value: at, Label: strings.SplitN(one.Title, ":", 2)[0]})
		for k, m := range modes {
			ms := m.of(one)
			if ms == nil {
				continue
			}
			x := at + (float64(k)-float64(len(modes)-1)/2)*0.12
			bar, err := plotter.NewPolygon(plotter.XYs{{X: x - 0.055, Y: 10}, {X: x - 0.055, Y: *ms}, {X: x + 0.055, Y: *ms}, {X: x + 0.055, Y: 10}})
			if err != nil {
				return fmt.Errorf("draw %s: %w", m.name, err)
			}
			bar.Color, bar.LineStyle.Width = colours[m.name], 0
			p.Add(bar)
			p.Y.Max = max(p.Y.Max, *ms)
			if !shown[m.name] {
				p.Legend.Add(m.name, bar)
				shown[m.name] = true
			}
		}
	}
	if len(ticks) == 0 {
		return nil
	}
	p.X.Tick.Marker = plot.ConstantTicks(ticks)
	p.X.Tick.Length = 0
	p.X.Min, p.X.Max = -0.6, float64(len(ticks))+0.6 // with place for the legend
	p.Legend.Left = false
	room(p)
	return p.Save(width, height, file)
}

// first is the first that was measured.
func first(all ...*float64) *float64 {
	for _, v := range all {
		if v != nil {
			return v
		}
	}
	return nil
}

func (r *results) plotScale(file string) error {
	p := newPlot("Time to the first answer, by the memory that the program holds")
	var lines []line
	for _, mode := range scaleModes {
		l := line{name: mode}
		for _, mib := range r.sizes() {
			l.add(float64(mib), r.Scale[sizeName(mib)].TouchedMS[mode]["0"])
		}
		lines = append(lines, l)
	}
	sizeAxis(p, r.sizes())
	drawn, err := curves(p, lines)
	if err != nil || !drawn {
		return err
	}
	room(p)
	return p.Save(width, height, file)
}

// sizeAxis makes the other axis one of sizes.
func sizeAxis(p *plot.Plot, sizes []int) {
	p.X.Label.Text = "memory"
	p.X.Scale = plot.LogScale{}
	var ticks []plot.Tick
	for _, mib := range sizes {
		ticks = append(ticks, plot.Tick{Value: float64(mib), Label: size(mib)})
	}
	p.X.Tick.Marker = plot.ConstantTicks(ticks)
}

func (r *results) plotClones(file string) error {
	p := newPlot("Clones of the Python program: time to the first answer of each")
	lines := []line{{name: "p50, at once"}, {name: "p95, at once"}, {name: "p50, in sequence"}, {name: "p95, in sequence"}}
	var ticks []plot.Tick
	for _, n := range r.cloneCounts() {
		c := r.Clones[strconv.Itoa(n)]
		ticks = append(ticks, plot.Tick{Value: float64(n), Label: strconv.Itoa(n)})
		for i, ms := range []*float64{c.P50MS, c.P95MS, c.SequenceP50MS, c.SequenceP95MS} {
			lines[i].add(float64(n), ms)
		}
	}
	p.X.Label.Text = "clones"
	p.X.Tick.Marker = plot.ConstantTicks(ticks)
	drawn, err := curves(p, lines)
	if err != nil || !drawn {
		return err
	}
	room(p)
	return p.Save(width, height, file)
}

func (r *results) plotCapture(file string) error {
	p := newPlot("Capture, by the memory that the program holds")
	lines := []line{{name: "stock"}, {name: "copy"}, {name: "mapped"}, {name: "pause"}}
	for _, mib := range r.sizes() {
		c := r.Capture[sizeName(mib)]
		if c == nil {
			continue
		}
		for i, ms := range []*float64{c.StockTotalMS, c.CopyTotalMS, c.TotalMS, c.PauseMS} {
			lines[i].add(float64(mib), ms)
		}
	}
	sizeAxis(p, r.sizes())
	drawn, err := curves(p, lines)
	if err != nil || !drawn {
		return err
	}
	room(p)
	return p.Save(width, height, file)
}

package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/containerd-snap/snap/test/measure"
)

// show writes the results into the document at path, between its markers, and plots into the
// directory beside it that has the document's name. What was not measured stays as it is.
func (r *results) show(path string) error {
	doc, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text := string(doc)
	var errs []error
	for name, block := range r.blocks() {
		if block == "" {
			continue
		}
		if text, err = replace(text, name, block); err != nil {
			errs = append(errs, fmt.Errorf("show the results in %s: %w", path, err))
		}
	}
	dir := strings.TrimSuffix(path, filepath.Ext(path))
	errs = append(errs, r.plot(dir), measure.WriteFile(path, []byte(text)))
	return errors.Join(errs...)
}

// replace puts a block between the markers with its name.
func replace(doc, name, block string) (string, error) {
	begin, end := "<!-- bench: "+name+" -->\n", "<!-- end of bench: "+name+" -->"
	i := strings.Index(doc, begin)
	if i < 0 {
		return doc, fmt.Errorf("it has no line %q", strings.TrimSpace(begin))
	}
	i += len(begin)
	j := strings.Index(doc[i:], end)
	if j < 0 {
		return doc, fmt.Errorf("it has no line %q after %q", end, strings.TrimSpace(begin))
	}
	return doc[:i] + block + doc[i+j:], nil
}

func (r *results) blocks() map[string]string {
	return map[string]string{
		"machine": r.machineBlock(), "goals": r.goalsBlock(), "boot": r.bootBlock(), "restore": r.restoreBlock(),
		"clones": r.clonesBlock(), "scale": r.scaleBlock(), "touched": r.touchedBlock(), "capture": r.captureBlock(), "phases": r.phasesBlock(),
	}
}

// table is one in Markdown; the first row is its head.
func table(rows [][]string) string {
	var b strings.Builder
	for i, row := range rows {
		b.WriteString("| " + strings.Join(row, " | ") + " |\n")
		if i == 0 {
			b.WriteString("|" + strings.Repeat(" --- |", len(row)) + "\n")
		}
	}
	return b.String()
}

func (r *results) machineBlock() string {
	h := r.Host
	var text strings.Builder
	fmt.Fprintf(&text, "Measured at %s on %d processors (%s, %s), %d GB of memory, Linux %s, containerd %s, CRIU %s, version %s of this.\n",
		h.At.Format("2006-01-02"), h.CPUs, cmp.Or(h.CPU, "of unknown model"), h.Arch, h.MemoryBytes>>30, h.Kernel, h.Containerd, h.CRIU, h.Snap)
	if r.Quick {
		text.WriteString("\n**These are single runs, to see that the benchmark works. They say nothing about speed.**\n")
	}
	if r.DroppedBy != "" {
		text.WriteString("\nThe page cache was emptied by " + r.DroppedBy + ".\n")
	}
	for i, f := range r.Failures {
		if i == 0 {
			text.WriteString("\nMeasurements that failed:\n\n")
		}
		text.WriteString("- " + strings.Join(strings.Fields(f), " ") + "\n")
	}
	return text.String()
}

func (r *results) goalsBlock() string {
	rows := [][]string{{"goal", "wanted", "measured", ""}}
	for _, g := range r.Goals {
		verdict := "not measured"
		if g.Met != nil {
			verdict = map[bool]string{true: "**met**", false: "**not met**"}[*g.Met]
		}
		rows = append(rows, []string{g.What, g.Want, g.Got, verdict})
	}
	return table(rows)
}

func (r *results) bootBlock() string {
	b := r.Boot
	if b == nil || b.Ratio == nil {
		return ""
	}
	rows := [][]string{{"", "stock", "ours", "stock / ours, pair by pair"}}
	line := func(what string, stock, ours *float64, key string) {
		q := "–"
		if v := ratioOf(b.Runc.Runs[key], b.Snap.Runs[key]); v != nil {
			q = v.String()
		}
		rows = append(rows, []string{what, written(stock), written(ours), q})
	}
	line("`ctr run --rm`, to its end", b.RuncMS, b.SnapMS, "run")
	line("create a task", b.Runc.CreateMS, b.Snap.CreateMS, "create")
	line("start it", b.Runc.StartMS, b.Snap.StartMS, "start")
	line("execute a program in it, to its end", b.Runc.ExecMS, b.Snap.ExecMS, "exec")
	line("delete it", b.Runc.DeleteMS, b.Snap.DeleteMS, "delete")
	rows = append(rows,
		[]string{"memory of the shim (PSS)", megabytes(b.Runc.ShimPSSBytes), megabytes(b.Snap.ShimPSSBytes), ""},
		[]string{"programs on disk (stock: shim and runc)", megabytes(b.Runc.BinaryBytes), megabytes(b.Snap.BinaryBytes), ""})
	return table(rows)
}

func (q *ratio) String() string {
	if q == nil {
		return "–"
	}
	return fmt.Sprintf("%.2f (%.2f to %.2f)", q.Median, q.Min, q.Max)
}

func (r *results) restoreBlock() string {
	rows := [][]string{{"program", "resident", "boot", "stock", "runc by hand", "copy", "lazy", "mapped", "CRIU alone, copy", "CRIU alone, mapped", "stock / best"}}
	cold := [][]string{{"program, page cache empty", "stock", "runc by hand", "copy", "lazy", "mapped", "CRIU alone, copy", "CRIU alone, mapped"}}
	var notes strings.Builder
	for _, name := range programNames() {
		p := r.Restore[name]
		if p == nil {
			continue
		}
		best, _ := p.best()
		rows = append(rows, []string{
			p.Title, megabytes(p.ResidentBytes), written(p.ColdMS), written(p.StockMS), written(p.RuncMS),
			written(p.CopyMS), written(p.LazyMS), written(p.MappedMS), written(p.CRIUMS), written(p.CRIUMappedMS), p.Ratios["stock/"+best].String(),
		})
		c := p.ColdCache
		cold = append(cold, []string{
			p.Title, written(c["stock"]), written(c["runc"]), written(c["copy"]), written(c["lazy"]), written(c["mapped"]), written(c["criu"]), written(c["criu mapped"]),
		})
		for _, mode := range slices.Sorted(maps.Keys(p.Why)) {
			notes.WriteString(fmt.Sprintf("- %s, %s: %s\n", p.Title, mode, strings.Join(strings.Fields(p.Why[mode]), " ")))
		}
	}
	if len(rows) == 1 {
		return ""
	}
	text := table(rows) + "\n" + table(cold)
	if notes.String() != "" {
		text += "\nWhat has no time, and why:\n\n" + notes.String()
	}
	return text
}

func (r *results) clonesBlock() string {
	rows := [][]string{{"clones", "memory", "at once: p50", "p95", "in sequence: p50", "p95", "added for each", "of it, its shim", "all: PSS", "page cache grew by"}}
	for _, n := range r.cloneCounts() {
		c := r.Clones[strconv.Itoa(n)]
		rows = append(rows, []string{
			strconv.Itoa(n), string(c.Memory), written(c.P50MS), written(c.P95MS), written(c.SequenceP50MS), written(c.SequenceP95MS),
			megabytes(c.AddedBytesPerClone), megabytes(c.ShimPSSBytes), megabytes(c.PSSBytes), megabytes(c.CacheBytes),
		})
	}
	if len(rows) == 1 {
		return ""
	}
	return table(rows)
}

// cloneCounts are those that were measured, the least first.
func (r *results) cloneCounts() []int {
	var all []int
	for key := range r.Clones {
		var n int
		if _, err := fmt.Sscan(key, &n); err == nil {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return all
}

// sizes are those that were measured, the least first.
func (r *results) sizes() []int {
	return slices.DeleteFunc(slices.Clone(manySizes), func(mib int) bool { return r.Scale[sizeName(mib)] == nil })
}

func (r *results) scaleBlock() string {
	rows := [][]string{{"memory of the program", "boot", "stock", "copy", "lazy", "mapped", "page cache empty: copy", "lazy", "mapped"}}
	for _, mib := range r.sizes() {
		s := r.Scale[sizeName(mib)]
		rows = append(rows, []string{
			size(mib), written(s.ColdMS), written(s.StockMS), written(s.CopyMS), written(s.LazyMS), written(s.MappedMS),
			written(s.ColdCacheMS["copy"]), written(s.ColdCacheMS["lazy"]), written(s.ColdCacheMS["mapped"]),
		})
	}
	if len(rows) == 1 {
		return ""
	}
	return table(rows)
}

func (r *results) touchedBlock() string {
	rows := [][]string{{"memory of the program", "mode", "0 %", "1 %", "10 %", "100 %"}}
	for _, mib := range r.sizes() {
		for _, mode := range scaleModes {
			t := r.Scale[sizeName(mib)].TouchedMS[mode]
			if t == nil {
				continue
			}
			rows = append(rows, []string{size(mib), mode, written(t["0"]), written(t["1"]), written(t["10"]), written(t["100"])})
		}
	}
	if len(rows) == 1 {
		return ""
	}
	return table(rows)
}

// scaleModes are in the order in which they are shown.
var scaleModes = []string{"stock", "copy", "lazy", "mapped"}

func (r *results) captureBlock() string {
	rows := [][]string{{"memory of the program", "capture, mapped form", "the program stood still", "of it, CRIU", "written", "capture, copy form", "the program stood still", "stock"}}
	for _, mib := range r.sizes() {
		c := r.Capture[sizeName(mib)]
		if c == nil {
			continue
		}
		rows = append(rows, []string{
			size(mib), written(c.TotalMS), written(c.PauseMS), written(c.DumpMS), megabytes(c.BytesWritten), written(c.CopyTotalMS), written(c.CopyPauseMS), written(c.StockTotalMS),
		})
	}
	if len(rows) == 1 {
		return ""
	}
	return table(rows)
}

// phasesBlock shows the phases of all starts but those of the part scale, whose names begin with
// a size: they are in the results.
func (r *results) phasesBlock() string {
	var b strings.Builder
	for _, kind := range slices.Sorted(maps.Keys(r.Phases)) {
		if unicode.IsDigit(rune(kind[0])) {
			continue
		}
		rows := [][]string{{"phase", "ms"}}
		total := 0.0
		for _, p := range r.Phases[kind] {
			name := p.Name
			if p.Within {
				name = "… " + name
			} else {
				total += p.MS
			}
			rows = append(rows, []string{name, fmt.Sprintf("%.1f", p.MS)})
		}
		rows = append(rows, []string{"**sum of the medians**", fmt.Sprintf("**%.1f**", total)})
		fmt.Fprintf(&b, "\n### %s\n\n%s", strings.ToUpper(kind[:1])+kind[1:], table(rows))
	}
	return b.String()
}

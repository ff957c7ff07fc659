package main

import (
	"fmt"
	"strconv"
	"strings"
)

// row is a line of the table.
type row struct{ what, time, note string }

// table shows the figures to people.
func (f figures) table() string {
	runs := fmt.Sprintf(", median of %d", len(f.RestoredRunsMS))
	if len(f.RestoredRunsMS) == 1 {
		runs = ""
	}
	rows := []row{
		{"to the program's first answer", "", "a boot takes"},
		{"  boot", duration(f.ColdMS), ""},
		{"  restore" + runs, duration(f.RestoredMS), times(f.ColdMS, f.RestoredMS)},
		{"  stock restore" + runs, duration(f.StockRestoreMS), times(f.ColdMS, f.StockRestoreMS)},
		{"  boot after a failed restore", duration(f.FallbackMS), times(f.ColdMS, f.FallbackMS)},
		{},
		{"to the registered checkpoint", "", ""},
		{"  capture", duration(f.CaptureMS), fmt.Sprintf("of %.0f MB resident memory", f.Program.RSSMB)},
		{"    the program stood still", duration(f.PauseMS), "its client waited " + duration(f.ClientGapMS)},
		{"  stock capture", duration(f.StockCaptureMS), ""},
	}
	var b strings.Builder
	for _, r := range rows {
		line := fmt.Sprintf("%-34s %10s   %s", r.what, r.time, r.note)
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	fmt.Fprintf(&b, "\nA restore is %s times as fast as a boot, and %s times as fast as a stock restore.\n",
		ratio(f.ColdMS, f.RestoredMS), ratio(f.StockRestoreMS, f.RestoredMS))
	return b.String()
}

// times says how often the time part goes into whole.
func times(whole, part float64) string { return ratio(whole, part) + " times as long" }

// ratio writes whole/part with two digits at least; "?" if that is not known.
func ratio(whole, part float64) string {
	if whole <= 0 || part <= 0 {
		return "?"
	}
	r := whole / part
	if r < 9.95 {
		return strconv.FormatFloat(r, 'f', 1, 64)
	}
	return strconv.FormatFloat(r, 'f', 0, 64)
}

// duration writes milliseconds with three digits, as "4.71 ms", "212 ms" or "5.12 s".
func duration(ms float64) string {
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

// durations writes several, as "212 ms, 198 ms".
func durations(ms []float64) string {
	all := make([]string, len(ms))
	for i, v := range ms {
		all[i] = duration(v)
	}
	return strings.Join(all, ", ")
}

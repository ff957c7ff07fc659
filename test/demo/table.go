package main

import (
	"fmt"
	"strings"

	"github.com/containerd-snap/snap/test/measure"
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
		{"  boot", measure.Duration(f.ColdMS), ""},
		{"  restore" + runs, measure.Duration(f.RestoredMS), times(f.ColdMS, f.RestoredMS)},
		{"  stock restore" + runs, measure.Duration(f.StockRestoreMS), times(f.ColdMS, f.StockRestoreMS)},
		{"  boot after a failed restore", measure.Duration(f.FallbackMS), times(f.ColdMS, f.FallbackMS)},
		{},
		{"to the registered checkpoint", "", ""},
		{"  capture", measure.Duration(f.CaptureMS), fmt.Sprintf("of %.0f MB resident memory", f.Program.RSSMB)},
		{"    the program stood still", measure.Duration(f.PauseMS), "its client waited " + measure.Duration(f.ClientGapMS)},
		{"  stock capture", measure.Duration(f.StockCaptureMS), ""},
	}
	var b strings.Builder
	for _, r := range rows {
		line := fmt.Sprintf("%-34s %10s   %s", r.what, r.time, r.note)
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	fmt.Fprintf(&b, "\nA restore is %s times as fast as a boot, and %s times as fast as a stock restore.\n",
		measure.Ratio(f.ColdMS, f.RestoredMS), measure.Ratio(f.StockRestoreMS, f.RestoredMS))
	return b.String()
}

// times says how often the time part goes into whole.
func times(whole, part float64) string { return measure.Ratio(whole, part) + " times as long" }

package main

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestTable(t *testing.T) {
	full := figures{
		ColdMS: 4712.3, CaptureMS: 443.5, PauseMS: 228.1, ClientGapMS: 236.4,
		RestoredMS: 210.04, RestoredRunsMS: []float64{243.1, 210.04, 203.2}, FallbackMS: 4803.1,
		StockColdMS: 4699, StockCaptureMS: 1232.1, StockRestoreMS: 845.6, StockRestoreRunsMS: []float64{324.7, 845.6, 1176},
		Program: programFacts{Documents: 27000, Words: 30000, RSSMB: 211.6, CheckpointMB: 181.7},
	}
	once := full
	once.RestoredRunsMS, once.RestoredMS = []float64{54.2}, 54.2
	for name, f := range map[string]figures{"full": full, "once": once, "nothing": {}} {
		t.Run(name, func(t *testing.T) {
			golden := filepath.Join("testdata", "table-"+name+".txt")
			got := f.table()
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("table:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

package main

import "github.com/containerd-snap/snap/test/measure"

// figures is what the demo measured. Times are milliseconds, from before a
// command to the program's first answer where nothing else is said.
type figures struct {
	// ColdMS is the boot of the program under our runtime.
	ColdMS float64 `json:"cold_ms"`
	// CaptureMS is the whole of snapctl create, PauseMS how long the program stood
	// still in it, ClientGapMS the longest time that a client waited for an answer.
	CaptureMS   float64 `json:"capture_ms"`
	PauseMS     float64 `json:"pause_ms"`
	ClientGapMS float64 `json:"client_gap_ms"`
	// RestoredMS is the median of RestoredRunsMS.
	RestoredMS     float64   `json:"restored_ms"`
	RestoredRunsMS []float64 `json:"restored_runs_ms"`
	// FallbackMS is the boot after a failed restore, with the attempt.
	FallbackMS float64 `json:"fallback_ms"`
	// The same of the stock runtime, of ctr containers checkpoint and restore.
	StockColdMS        float64   `json:"stock_cold_ms"`
	StockCaptureMS     float64   `json:"stock_capture_ms"`
	StockRestoreMS     float64   `json:"stock_restore_ms"`
	StockRestoreRunsMS []float64 `json:"stock_restore_runs_ms"`

	Program programFacts `json:"program"`
	Host    measure.Host `json:"host"`
}

// programFacts says what was captured. Sizes are in units of a million bytes.
type programFacts struct {
	Documents    int     `json:"documents"`
	Words        int     `json:"words"`
	RSSMB        float64 `json:"rss_mb"`
	CheckpointMB float64 `json:"checkpoint_mb"`
}

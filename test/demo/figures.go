package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/criu"
)

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
	Host    hostFacts    `json:"host"`
}

// programFacts says what was captured. Sizes are in units of a million bytes.
type programFacts struct {
	Documents    int     `json:"documents"`
	Words        int     `json:"words"`
	RSSMB        float64 `json:"rss_mb"`
	CheckpointMB float64 `json:"checkpoint_mb"`
}

// hostFacts says on what it was measured.
type hostFacts struct {
	At         time.Time `json:"at"`
	Kernel     string    `json:"kernel"`
	Arch       string    `json:"arch"`
	CPUs       int       `json:"cpus"`
	Containerd string    `json:"containerd"`
	CRIU       string    `json:"criu"`
	Snap       string    `json:"snap"`
}

// host asks the machine and the programs.
func (d *demo) host(ctx context.Context) (hostFacts, error) {
	h := hostFacts{At: time.Now().UTC().Truncate(time.Second), Arch: runtime.GOARCH, CPUs: runtime.NumCPU()}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return h, fmt.Errorf("ask for the kernel's release: %w", err)
	}
	h.Kernel = unix.ByteSliceToString(u.Release[:])
	v, err := d.node.Client().Version(ctx)
	if err != nil {
		return h, fmt.Errorf("ask containerd for its version: %w", err)
	}
	h.Containerd = v.Version
	out, err := d.node.Snapctl(ctx, "version")
	if err != nil {
		return h, err
	}
	h.Snap = strings.TrimPrefix(strings.TrimSpace(out.Stdout), "snapctl ")
	bin, err := criu.Find()
	if err != nil {
		return h, err
	}
	n, err := bin.Version(ctx)
	h.CRIU = checkpoint.FormatCRIU(n)
	return h, err
}

// write puts the figures into a file, as JSON.
func (f figures) write(name string) error {
	data, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the figures: %w", err)
	}
	return writeFile(name, append(data, '\n'))
}

// writeFile writes a file and makes its directory.
func writeFile(name string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return os.WriteFile(name, data, 0o644)
}

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd-snap/snap/test/harness"
	"github.com/containerd-snap/snap/test/measure"
)

const (
	stockShim = "containerd-shim-runc-v2"
	// stockCheckpoint is the image that holds the stock runtime's checkpoint.
	stockCheckpoint = "localhost/snap/stock-checkpoint:1"
)

// showStock takes and restores a checkpoint of the same program with the stock
// runtime, on the same node. No client asks meanwhile: the stock runtime cannot
// capture a program with an open connection.
func showStock(ctx context.Context, d *demo) (string, error) {
	runc, err := d.addStock()
	if err != nil {
		return "", err
	}
	l, err := d.start(ctx, stockID, runCommand(stockID, "--runtime", measure.StockRuntime, "--runc-binary", runc), nil)
	if err != nil {
		return "", err
	}
	d.figures.StockColdMS = measure.Milliseconds(l.took)
	if err := d.stockCapture(ctx); err != nil {
		return "", err
	}
	for n := range d.runs {
		id := fmt.Sprintf("%s-%d", stockID, n+1)
		// runc leaves the network's configuration out of its checkpoints: without
		// somebody's help a restored program cannot be reached, even on lo.
		r, err := d.start(ctx, id, []string{"containers", "restore", "--rw", "--live", id, stockCheckpoint}, harness.SetLoopbackUp)
		if err != nil {
			return "", err
		}
		if r.first.BootID != l.first.BootID {
			return "", fmt.Errorf("%s answers with boot id %s, not with %s of the captured program", id, r.first.BootID, l.first.BootID)
		}
		d.figures.StockRestoreRunsMS = append(d.figures.StockRestoreRunsMS, measure.Milliseconds(r.took))
		if err := measure.Remove(ctx, d.node, id); err != nil {
			return "", err
		}
	}
	d.figures.StockRestoreMS = measure.Median(d.figures.StockRestoreRunsMS)
	d.progress.note("runc restores no network configuration: for each restore the demo sets up lo", "")
	return fmt.Sprintf("boot %s, capture %s, restore %s",
		measure.Duration(d.figures.StockColdMS), measure.Duration(d.figures.StockCaptureMS), measure.Durations(d.figures.StockRestoreRunsMS)), nil
}

// stockCapture takes the checkpoint and removes the container: its restored
// copies shall have the machine to themselves.
func (d *demo) stockCapture(ctx context.Context) error {
	running, kill := measure.ToTheEnd(ctx, captureTimeout)
	defer kill()
	began := time.Now()
	if _, err := d.node.Ctr(running, "containers", "checkpoint", "--rw", "--task", stockID, stockCheckpoint); err != nil {
		return err
	}
	d.figures.StockCaptureMS = measure.Milliseconds(time.Since(began))
	return measure.Remove(ctx, d.node, stockID)
}

// addStock puts the stock shim on the PATH of the node's containerd, and returns
// the path of runc, which stays off it: our runtime must not need it.
func (d *demo) addStock() (string, error) {
	shim, err := harness.Tool(stockShim)
	if err != nil {
		return "", err
	}
	if err := os.Symlink(shim, filepath.Join(d.node.Bin, stockShim)); err != nil {
		return "", fmt.Errorf("add the stock runtime: %w", err)
	}
	return harness.Tool("runc")
}

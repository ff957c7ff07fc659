package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/continuity/fs"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/test/harness"
	"github.com/containerd-snap/snap/test/measure"
)

// showFallback starts the program where the only checkpoint is damaged: a flipped
// bit in an image of CRIU's, as a failing disk makes it.
func showFallback(ctx context.Context, d *demo) (_ string, retErr error) {
	damaged := filepath.Join(d.node.Dir, "damaged")
	if err := fs.CopyDir(damaged, d.node.StoreRoot); err != nil {
		return "", fmt.Errorf("copy the store: %w", err)
	}
	name, err := damage(damaged)
	if err != nil {
		return "", err
	}
	// Shims read the configuration when they start.
	if err := d.useStore(damaged); err != nil {
		return "", err
	}
	defer func() { retErr = errors.Join(retErr, d.useStore(d.node.StoreRoot)) }()
	l, err := d.start(ctx, fallbackID, runCommand(fallbackID, "--runtime", harness.Runtime), nil)
	if err != nil {
		return "", err
	}
	if err := d.fellBack(ctx, l); err != nil {
		return "", err
	}
	d.figures.FallbackMS = measure.Milliseconds(l.took)
	out, err := d.node.Snapctl(ctx, "explain", fallbackID)
	if err != nil {
		return "", err
	}
	start, _, _ := strings.Cut(out.Stdout, "\n\n")
	d.progress.note("snapctl explain "+fallbackID, start)
	return fmt.Sprintf("one bit of %s flipped: it booted instead, first answer after %s", name, measure.Duration(d.figures.FallbackMS)), measure.Remove(ctx, d.node, fallbackID)
}

// fellBack verifies that a restore was tried, and that the program booted.
func (d *demo) fellBack(ctx context.Context, l life) error {
	s, err := measure.Explain(ctx, d.node, l.id)
	if err != nil {
		return err
	}
	switch {
	case s.Decision.Action != checkpoint.Restore || s.Outcome != checkpoint.Boot || s.Fallback == "":
		return fmt.Errorf("start %s from a damaged checkpoint: the decision was %s (%s), the outcome %s (%q)",
			l.id, s.Decision.Action, s.Decision.Reason, s.Outcome, s.Fallback)
	case l.first.BootID == d.cold.first.BootID || l.first.Counter != 1:
		return fmt.Errorf("start %s from a damaged checkpoint: answer number %d of boot %s is not that of a new life", l.id, l.first.Counter, l.first.BootID)
	}
	return d.answersAlike(l)
}

// useStore names another store to the shims that start from now on, and to snapctl.
func (d *demo) useStore(root string) error {
	if err := os.WriteFile(d.node.SnapConfig(), fmt.Appendf(nil, "root = %q\n", root), 0o600); err != nil {
		return fmt.Errorf("configure store %s: %w", root, err)
	}
	return nil
}

// damage flips one bit in an image of the process tree's root in the store's only
// checkpoint, and returns the image's name.
func damage(store string) (string, error) {
	pattern := filepath.Join(store, "entries", "*", "images", "mm-*.img")
	images, err := filepath.Glob(pattern)
	if err != nil {
		return "", fmt.Errorf("damage a checkpoint: %w", err)
	}
	if len(images) == 0 {
		return "", fmt.Errorf("damage a checkpoint: no file is like %s", pattern)
	}
	f, err := os.OpenFile(images[0], os.O_RDWR, 0)
	if err != nil {
		return "", fmt.Errorf("damage a checkpoint: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("damage a checkpoint: %w", err)
	}
	b, at := make([]byte, 1), info.Size()/2
	if _, err := f.ReadAt(b, at); err != nil {
		return "", fmt.Errorf("damage a checkpoint: %w", err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b, at); err != nil {
		return "", fmt.Errorf("damage a checkpoint: %w", err)
	}
	return filepath.Base(images[0]), nil
}

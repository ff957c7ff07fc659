package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/containerd-snap/snap/test/harness"
	"github.com/containerd-snap/snap/test/measure"
)

// How long a step may take before it has failed: many times what it takes.
const (
	setupTimeout   = 3 * time.Minute
	captureTimeout = 2 * time.Minute
)

// The ids of the containers, and the name of the checkpoint.
const (
	coldID         = "cold"
	restoredID     = "restored"
	fallbackID     = "fallback"
	stockID        = "stock"
	checkpointName = "demo"
)

// demo is one showing.
type demo struct {
	node     *harness.Node
	progress *progress
	runs     int
	// networks are the network namespaces that tasks had.
	networks map[harness.NetNS]bool
	// cold is the booted program, and captured what its checkpoint may count next.
	cold     life
	captured counters
	figures  figures
}

// step is one thing that the demo shows.
type step struct {
	title string
	// do shows it and returns what came of it, in a few words.
	do func(context.Context, *demo) (string, error)
}

// steps are what the demo shows, in order.
func steps() []step {
	return []step{
		{"make a container image of the program", prepareImage},
		{"cold: boot the program", showBoot},
		{"capture it while a client goes on asking", showCapture},
		{"restore: the same command under a new id", showRestore},
		{"damage a copy of the checkpoint, and start from that", showFallback},
		{"the same under the stock runtime", showStock},
	}
}

// show starts a node, shows all steps on it, and removes every trace of them.
func show(ctx context.Context, s settings, p *progress) (figures, error) {
	d := &demo{progress: p, runs: s.runs, networks: map[harness.NetNS]bool{}}
	err := p.step("start a containerd of our own", func() (string, error) { return d.begin(ctx) })
	if err == nil {
		err = d.showAll(ctx)
	}
	if d.node == nil {
		return d.figures, err
	}
	log, logErr := os.Open(d.node.LogFile)
	if logErr == nil {
		defer log.Close()
	}
	// Neither a failure nor Ctrl-C is a reason to leave anything behind.
	end := p.step("remove everything", func() (string, error) { return d.end(context.WithoutCancel(ctx)) })
	if end != nil || err != nil && ctx.Err() == nil {
		err = errors.Join(err, end, logErr, keepLog(s.out, log))
	}
	return d.figures, err
}

// keepLog saves the log of containerd and its shims beside the figures. The
// file is removed already, but it is still open.
func keepLog(out string, log io.Reader) error {
	data, err := io.ReadAll(log)
	if err != nil {
		return fmt.Errorf("keep the log: %w", err)
	}
	name := out + ".log"
	if err := measure.WriteFile(name, data); err != nil {
		return fmt.Errorf("keep the log: %w", err)
	}
	return fmt.Errorf("the log of containerd and its shims is in %s", name)
}

// begin starts the node.
func (d *demo) begin(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, setupTimeout)
	defer cancel()
	var err error
	if d.node, err = harness.Start(ctx, harness.Options{}); err != nil {
		return "", err
	}
	if d.figures.Host, err = measure.HostOf(ctx, d.node); err != nil {
		return "", err
	}
	h := d.figures.Host
	return fmt.Sprintf("containerd %s, CRIU %s, Linux %s, %d processors", h.Containerd, h.CRIU, h.Kernel, h.CPUs), nil
}

func (d *demo) showAll(ctx context.Context) error {
	for _, s := range steps() {
		if err := d.progress.step(s.title, func() (string, error) { return s.do(ctx, d) }); err != nil {
			return err
		}
	}
	return nil
}

// end stops the node and verifies that nothing of it is left.
func (d *demo) end(ctx context.Context) (string, error) {
	left, err := d.node.Stop(ctx)
	if err != nil {
		return "", err
	}
	if !left.Empty() {
		return "", fmt.Errorf("remove the demo's containers: this was left of them, and was removed by force:\n%s", left)
	}
	if left, err = d.node.Leftovers(); err != nil {
		return "", err
	}
	if !left.Empty() {
		return "", fmt.Errorf("remove the demo's node: this is left of it:\n%s", left)
	}
	if err := d.networksGone(); err != nil {
		return "", err
	}
	if _, err := os.Stat(d.node.Dir); !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("remove the demo's node: %s is still there", d.node.Dir)
	}
	return "no process, mount, cgroup, network namespace or file is left", nil
}

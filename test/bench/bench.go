package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd-snap/snap/test/harness"
	"github.com/containerd-snap/snap/test/measure"
)

// part is one kind of measurement.
type part struct {
	name string
	do   func(context.Context, *bench) error
}

// parts are in the order in which they are measured: the node's store is empty in the first.
func parts() []part {
	return []part{
		{"boot", measureBoots},
		{"restore", measureRestores},
		{"clones", measureClones},
		{"scale", measureScale},
	}
}

func partNames() []string {
	var all []string
	for _, p := range parts() {
		all = append(all, p.name)
	}
	return all
}

// How long something may take before it has failed: many times what it takes.
const (
	setupTimeout   = 5 * time.Minute
	captureTimeout = 5 * time.Minute
	commandTimeout = time.Minute
)

// bench is one run of the benchmark.
type bench struct {
	settings
	node    *harness.Node
	began   time.Time
	out     io.Writer
	results *results
	// dir holds what is made for a measurement; imported are the images that the node has.
	dir      string
	imported map[string]bool
	// ids counts containers, so that no two have the same name.
	ids int
	// cacheIsCold: the page cache was emptied for the start that is measured.
	cacheIsCold bool
}

// start starts the node.
func start(ctx context.Context, s settings) (*bench, error) {
	ctx, cancel := context.WithTimeout(ctx, setupTimeout)
	defer cancel()
	b := &bench{settings: s, began: time.Now(), out: os.Stdout, results: newResults(s.quick), imported: map[string]bool{}}
	var err error
	if b.node, err = harness.Start(ctx, harness.Options{Stock: true}); err != nil {
		return nil, err
	}
	b.dir = filepath.Join(b.node.Dir, "bench")
	err = os.Mkdir(b.dir, 0o755)
	if err == nil {
		b.results.Host, err = measure.HostOf(ctx, b.node)
	}
	if err != nil {
		return nil, errors.Join(err, b.end(context.WithoutCancel(ctx)))
	}
	h := b.results.Host
	b.say("containerd %s, CRIU %s, Linux %s, %d processors, %d GB of memory", h.Containerd, h.CRIU, h.Kernel, h.CPUs, h.MemoryBytes>>30)
	return b, nil
}

// measure measures all parts that are wanted. What there is, is written after each.
func (b *bench) measure(ctx context.Context) {
	for _, p := range parts() {
		if len(b.only) > 0 && !slices.Contains(b.only, p.name) {
			continue
		}
		b.say("== %s", p.name)
		if err := p.do(ctx, b); err != nil {
			b.failed(p.name, err)
		}
		if err := b.results.write(b.settings.out); err != nil {
			b.failed(p.name, err)
		}
		if ctx.Err() != nil {
			b.failed(p.name, fmt.Errorf("interrupted: %w", ctx.Err()))
			return
		}
	}
}

// end stops the node. Something left over is an error.
func (b *bench) end(ctx context.Context) error {
	left, err := b.node.Stop(ctx)
	if !left.Empty() {
		err = errors.Join(err, fmt.Errorf("something was left on the node when its containers were deleted:\n%s", left))
	}
	return err
}

// say tells what is done.
func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.out, "[%7.1f s] %s\n", time.Since(b.began).Seconds(), fmt.Sprintf(format, args...))
}

// failed notes a measurement that failed.
func (b *bench) failed(what string, err error) {
	b.say("%s FAILED: %v", what, err)
	// Where the node's files are is nobody's business.
	text := strings.ReplaceAll(err.Error(), b.node.Dir, "…")
	b.results.Failures = append(b.results.Failures, what+": "+text)
}

// rounds is how often something is measured, in full or quickly.
func (b *bench) rounds(full, quick int) int {
	if b.quick {
		return quick
	}
	return full
}

func (b *bench) id(prefix string) string {
	b.ids++
	return fmt.Sprintf("%s-%d", prefix, b.ids)
}

// load makes sure that the node has the program's image.
func (b *bench) load(ctx context.Context, p *program) error {
	if b.imported[p.image] {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, setupTimeout)
	defer cancel()
	dir, err := os.MkdirTemp(b.dir, "image-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	archive, err := p.make(ctx, dir)
	if err != nil {
		return err
	}
	b.imported[p.image] = true
	return b.node.Import(ctx, archive)
}

// ctr runs a command that is not interrupted: what is killed halfway leaves half of what
// it makes behind.
func (b *bench) ctr(ctx context.Context, args ...string) error {
	ctx, cancel := measure.ToTheEnd(ctx, captureTimeout)
	defer cancel()
	_, err := b.node.Ctr(ctx, args...)
	return err
}

func (b *bench) remove(ctx context.Context, id string) error { return measure.Remove(ctx, b.node, id) }

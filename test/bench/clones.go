package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/test/harness"
	"github.com/containerd-snap/snap/test/measure"
)

// clones is what N clones of the Python program cost, whose memory comes back as it is chosen.
type clones struct {
	Memory checkpoint.MemoryMode `json:"memory"`
	// P50MS and P95MS are of N starts at once, in sequence those of one after the other.
	P50MS         *float64 `json:"p50_ms"`
	P95MS         *float64 `json:"p95_ms"`
	SequenceP50MS *float64 `json:"sequence_p50_ms"`
	SequenceP95MS *float64 `json:"sequence_p95_ms"`
	// AddedBytesPerClone is what the machine's used memory grew by, without the page cache,
	// divided by N: tasks, shims, page tables and all.
	AddedBytesPerClone int64 `json:"added_bytes_per_clone"`
	// PSSBytes is the sum over tasks and shims, TaskPrivateBytes what each task has alone, and
	// CacheBytes what the page cache grew by.
	PSSBytes         int64     `json:"pss_bytes"`
	TaskPrivateBytes int64     `json:"task_private_bytes"`
	ShimPSSBytes     int64     `json:"shim_pss_bytes"`
	CacheBytes       int64     `json:"page_cache_bytes"`
	RunsMS           []float64 `json:"runs_ms"`
	SequenceRunsMS   []float64 `json:"sequence_runs_ms"`
}

func measureClones(ctx context.Context, b *bench) error {
	p := searchProgram()
	if b.quick {
		p = smallProgram()
	}
	if err := b.load(ctx, p); err != nil {
		return err
	}
	l, err := b.boot(ctx, p, harness.Runtime, annotation("restore", "Never"))
	if err != nil {
		return errors.Join(err, b.removeHalf(ctx, l.ID))
	}
	c, err := b.take(ctx, l.ID, "clones")
	if err := errors.Join(err, b.remove(ctx, l.ID)); err != nil {
		return err
	}
	memory := checkpoint.MemoryCopy
	if c.entry.Checkpoint.Memory.Form == checkpoint.MemoryMapped {
		memory = checkpoint.MemoryMapped
	}
	counts := []int{1, 5, 20, 50}
	if b.quick {
		counts = []int{1, 5}
	}
	for _, n := range counts {
		if ctx.Err() != nil {
			break
		}
		r := &clones{Memory: memory}
		if err := r.measure(ctx, b, p, n); err != nil {
			b.failed(fmt.Sprintf("%d clones", n), err)
			continue
		}
		b.results.Clones[strconv.Itoa(n)] = r
		b.say("%d clones: p50 %s, p95 %s at once; %s and %s in sequence; %.1f MB each", n, measure.Duration(*r.P50MS), measure.Duration(*r.P95MS),
			measure.Duration(*r.SequenceP50MS), measure.Duration(*r.SequenceP95MS), float64(r.AddedBytesPerClone)/1e6)
	}
	return b.forget(ctx, "clones")
}

// measure starts n clones in sequence and, when those are gone, n at once.
func (r *clones) measure(ctx context.Context, b *bench, p *program, n int) error {
	if err := b.rest(ctx); err != nil {
		return err
	}
	ids := make([]string, n)
	for i := range ids {
		ids[i] = b.id("clone")
	}
	lives, err := r.all(ctx, b, p, ids, 1)
	err = errors.Join(err, removeAll(ctx, b, ids))
	if err != nil {
		return err
	}
	for _, l := range lives {
		r.SequenceRunsMS = append(r.SequenceRunsMS, measure.Milliseconds(l.Took))
	}
	for i := range ids {
		ids[i] = b.id("clone")
	}
	before, err := readNodeMemory()
	if err != nil {
		return err
	}
	lives, err = r.all(ctx, b, p, ids, n)
	if err == nil {
		err = r.weigh(lives, before)
	}
	if err := errors.Join(err, removeAll(ctx, b, ids)); err != nil {
		return err
	}
	for _, l := range lives {
		r.RunsMS = append(r.RunsMS, measure.Milliseconds(l.Took))
	}
	p50, p95 := measure.Percentile(r.RunsMS, 50), measure.Percentile(r.RunsMS, 95)
	s50, s95 := measure.Percentile(r.SequenceRunsMS, 50), measure.Percentile(r.SequenceRunsMS, 95)
	r.P50MS, r.P95MS, r.SequenceP50MS, r.SequenceP95MS = &p50, &p95, &s50, &s95
	return nil
}

// all starts clones, as many at a time as it is told, and verifies that they were restored.
func (r *clones) all(ctx context.Context, b *bench, p *program, ids []string, atOnce int) ([]measure.Life, error) {
	lives, errs := make([]measure.Life, len(ids)), make([]error, len(ids))
	var wg sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for i, id := range ids {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			lives[i], errs[i] = measure.Run(ctx, b.node, measure.Start{
				ID: id, Command: append([]string{"run", "--detach", "--runtime", harness.Runtime, p.image, id}, p.args...), Answer: p.answer,
			})
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	for _, id := range ids {
		s, err := measure.Explain(ctx, b.node, id)
		if err != nil {
			return nil, err
		}
		if s.Outcome != checkpoint.Restore || s.Memory != r.Memory {
			return nil, fmt.Errorf("start %s: it was a %s, its memory %q: %s%s", id, s.Outcome, s.Memory, s.Decision.Reason, s.Fallback)
		}
	}
	return lives, nil
}

// weigh tells what the clones that run hold, at rest.
func (r *clones) weigh(lives []measure.Life, before nodeMemory) error {
	time.Sleep(settle)
	after, err := readNodeMemory()
	if err != nil {
		return err
	}
	n := int64(len(lives))
	r.AddedBytesPerClone, r.CacheBytes = (after.used-before.used)/n, after.cache-before.cache
	var tasks, shims harness.Memory
	for _, l := range lives {
		init, err := harness.ReadProcess(l.PID)
		if err != nil {
			return err
		}
		task, err := harness.ReadMemory(l.PID)
		if err != nil {
			return err
		}
		shim, err := harness.ReadMemory(init.PPID)
		if err != nil {
			return err
		}
		tasks, shims = tasks.Plus(task), shims.Plus(shim)
	}
	r.PSSBytes, r.TaskPrivateBytes, r.ShimPSSBytes = tasks.PSS+shims.PSS, tasks.Private/n, shims.PSS/n
	return nil
}

func removeAll(ctx context.Context, b *bench, ids []string) error {
	var errs []error
	for _, id := range ids {
		errs = append(errs, b.removeHalf(ctx, id))
	}
	return errors.Join(errs...)
}

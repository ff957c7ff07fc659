package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/test/harness"
	"github.com/containerd-snap/snap/test/measure"
)

// scale is how restores of a program that holds so much grow with it, to its first answer.
type scale struct {
	Bytes    int64    `json:"bytes"`
	ColdMS   *float64 `json:"cold_ms"`
	StockMS  *float64 `json:"stock_ms"`
	CopyMS   *float64 `json:"copy_ms"`
	LazyMS   *float64 `json:"lazy_ms"`
	MappedMS *float64 `json:"mapped_ms"`
	// TouchedMS is, by mode, the time from before the command until 0, 1, 10 and 100 percent of
	// the pages were touched, which is to be read, checked and changed.
	TouchedMS map[string]map[string]*float64  `json:"touched_ms"`
	Runs      map[string]map[string][]float64 `json:"runs_ms"`
	// ColdCacheMS is that to the first answer after the page cache was emptied.
	ColdCacheMS map[string]*float64 `json:"cold_cache_ms"`
	Why         map[string]string   `json:"why,omitempty"`
}

// capture is what a capture costs, of a program that holds so much.
type capture struct {
	// TotalMS is `snapctl create` in the mapped form, PauseMS the time for which the program
	// stood still, BytesWritten the size of the checkpoint.
	TotalMS      *float64 `json:"total_ms"`
	PauseMS      *float64 `json:"pause_ms"`
	DumpMS       *float64 `json:"dump_ms"`
	BytesWritten int64    `json:"bytes_written"`
	// The same in the copy form, and of `ctr containers checkpoint` under the stock runtime.
	CopyTotalMS  *float64 `json:"copy_total_ms"`
	CopyPauseMS  *float64 `json:"copy_pause_ms"`
	StockTotalMS *float64 `json:"stock_total_ms"`
}

// touched are the percentages, in their order.
var touched = []int{0, 1, 10, 100}

// manySizes are in MiB. The stock runtime's checkpoints are left out above the limit: to
// write and to unpack them would take longer than all else.
var (
	manySizes = []int{64, 256, 1024, 2048, 4096}
	fewSizes  = []int{64, 256}
)

const stockLimit = 1024

func measureScale(ctx context.Context, b *bench) error {
	all := manySizes
	if b.quick {
		all = fewSizes
	}
	for _, mib := range all {
		if err := ctx.Err(); err != nil {
			return err
		}
		p := touchProgram(mib)
		s := &scale{
			Bytes: int64(mib) << 20, TouchedMS: map[string]map[string]*float64{}, Runs: map[string]map[string][]float64{},
			ColdCacheMS: map[string]*float64{}, Why: map[string]string{},
		}
		c := &capture{}
		b.results.Scale[p.name], b.results.Capture[p.name] = s, c
		if err := b.scaleOne(ctx, p, mib, s, c); err != nil {
			b.failed("scale "+p.title, err)
		}
	}
	return nil
}

// scaled is a way to restore, to the first answer.
type scaled struct {
	name string
	back func(context.Context) (measure.Life, error)
}

func (b *bench) scaleOne(ctx context.Context, p *program, mib int, s *scale, c *capture) (retErr error) {
	if err := b.load(ctx, p); err != nil {
		return err
	}
	var taken []string
	defer func() {
		for _, name := range taken {
			retErr = errors.Join(retErr, b.forget(ctx, name))
		}
	}()
	var ways []scaled
	if mib <= stockLimit {
		w, err := b.scaleStock(ctx, p, c)
		if err != nil {
			return err
		}
		ways = append(ways, w)
		defer func() { retErr = errors.Join(retErr, b.stockForget(ctx, p)) }()
	} else {
		s.Why["stock"] = "left out: it would take longer than all else"
	}
	for _, memory := range []checkpoint.MemoryMode{checkpoint.MemoryCopy, checkpoint.MemoryMapped} {
		name := fmt.Sprintf("scale-%s-%s", p.name, memory)
		if err := b.scaleTake(ctx, p, name, memory, s, c); err != nil {
			return err
		}
		taken = append(taken, name)
		ways = append(ways, b.scaledBack(p, name, memory))
		if memory == checkpoint.MemoryCopy {
			ways = append(ways, b.scaledBack(p, name, "lazy"))
		}
	}
	for n := range b.rounds(3, 1) {
		for i := 0; i < len(ways); i++ {
			if err := b.rest(ctx); err != nil {
				return err
			}
			if err := b.scaleOnce(ctx, ways[i], s, false); err != nil {
				w := ways[i].name
				s.Why[w] = brief(err)
				if n > 0 || w != "lazy" || !refused(err) {
					b.failed(fmt.Sprintf("scale %s, %s", p.title, w), err)
				}
				ways = append(ways[:i:i], ways[i+1:]...)
				i--
			}
		}
	}
	b.cacheIsCold = true
	defer func() { b.cacheIsCold = false }()
	for _, w := range ways {
		err := b.rest(ctx)
		if err == nil {
			err = b.dropCache()
		}
		if err == nil {
			err = b.scaleOnce(ctx, w, s, true)
		}
		if err != nil {
			b.failed(fmt.Sprintf("scale %s, %s, cold cache", p.title, w.name), err)
		}
	}
	s.sum()
	b.say("%s: %s; capture %s, pause %s", p.title, s, written(c.TotalMS), written(c.PauseMS))
	return nil
}

func (b *bench) scaledBack(p *program, name string, memory checkpoint.MemoryMode) scaled {
	return scaled{string(memory), func(ctx context.Context) (measure.Life, error) {
		r, err := b.back(ctx, p, name, memory, p.answer)
		if err == nil && !b.cacheIsCold {
			b.notePhases(p.name, r)
		}
		return r.Life, err
	}}
}

func (b *bench) scaleStock(ctx context.Context, p *program, c *capture) (scaled, error) {
	l, err := b.boot(ctx, p, measure.StockRuntime)
	if err != nil {
		return scaled{}, errors.Join(err, b.removeHalf(ctx, l.ID))
	}
	took, err := b.stockTake(ctx, p, l.ID)
	if err := errors.Join(err, b.remove(ctx, l.ID)); err != nil {
		return scaled{}, err
	}
	c.StockTotalMS = median([]float64{measure.Milliseconds(took)})
	return scaled{"stock", func(ctx context.Context) (measure.Life, error) { return b.stockBack(ctx, p, p.answer) }}, nil
}

// scaleTake boots and captures the program in one form.
func (b *bench) scaleTake(ctx context.Context, p *program, name string, memory checkpoint.MemoryMode, s *scale, c *capture) error {
	l, err := b.boot(ctx, p, harness.Runtime, annotation("memory", string(memory)), annotation("restore", "Never"))
	if err != nil {
		return errors.Join(err, b.removeHalf(ctx, l.ID))
	}
	s.ColdMS = median([]float64{measure.Milliseconds(l.Took)})
	taken, err := b.take(ctx, l.ID, name)
	if err := errors.Join(err, b.remove(ctx, l.ID)); err != nil {
		return err
	}
	cp := taken.entry.Checkpoint
	total, pause, dumped := measure.Milliseconds(taken.took), round(cp.Timing.PauseMS), round(cp.Timing.DumpMS)
	if memory == checkpoint.MemoryCopy {
		c.CopyTotalMS, c.CopyPauseMS = &total, &pause
		return nil
	}
	c.TotalMS, c.PauseMS, c.DumpMS, c.BytesWritten = &total, &pause, &dumped, cp.Bytes()
	if cp.Memory.Form != memory {
		return fmt.Errorf("capture %s in the mapped form: %s", name, cp.Memory.Reason)
	}
	return nil
}

// scaleOnce restores once and has the program touch more and more of its memory.
func (b *bench) scaleOnce(ctx context.Context, w scaled, s *scale, cold bool) (retErr error) {
	l, err := w.back(ctx)
	if err != nil {
		return err
	}
	defer func() { retErr = errors.Join(retErr, b.remove(ctx, l.ID)) }()
	if cold {
		s.ColdCacheMS[w.name] = median([]float64{measure.Milliseconds(l.Took)})
		return nil
	}
	if s.Runs[w.name] == nil {
		s.Runs[w.name] = map[string][]float64{}
	}
	took := l.Took
	for i, percent := range touched {
		if i > 0 {
			began := time.Now()
			if err := get(fmt.Sprintf("/%d", percent), measure.Patient)(ctx, l.PID); err != nil {
				return fmt.Errorf("have %s touch %d %% of its memory: %w", l.ID, percent, err)
			}
			took += time.Since(began)
		}
		key := strconv.Itoa(percent)
		s.Runs[w.name][key] = append(s.Runs[w.name][key], measure.Milliseconds(took))
	}
	return nil
}

func (s *scale) sum() {
	for name, runs := range s.Runs {
		s.TouchedMS[name] = map[string]*float64{}
		for percent, ms := range runs {
			s.TouchedMS[name][percent] = median(ms)
		}
	}
	for name, to := range map[string]**float64{"stock": &s.StockMS, "copy": &s.CopyMS, "lazy": &s.LazyMS, "mapped": &s.MappedMS} {
		*to = s.TouchedMS[name]["0"]
	}
}

func (s *scale) String() string {
	return fmt.Sprintf("stock %s, copy %s, lazy %s, mapped %s", written(s.StockMS), written(s.CopyMS), written(s.LazyMS), written(s.MappedMS))
}

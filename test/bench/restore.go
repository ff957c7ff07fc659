package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/test/harness"
	"github.com/containerd-snap/snap/test/measure"
)

// restore is how long a program's starts take.
type restore struct {
	Title string `json:"title"`
	// ColdMS is the boot under our runtime, ColdStockMS that under the stock one.
	ColdMS      *float64 `json:"cold_ms"`
	ColdStockMS *float64 `json:"cold_stock_ms"`
	// Restores: of the stock runtime, of runc by hand, of ours in each mode, and of CRIU alone,
	// without a container, from images in the copy form and in the mapped form.
	StockMS      *float64 `json:"stock_ms"`
	RuncMS       *float64 `json:"runc_ms"`
	CopyMS       *float64 `json:"copy_ms"`
	LazyMS       *float64 `json:"lazy_ms"`
	MappedMS     *float64 `json:"mapped_ms"`
	CRIUMS       *float64 `json:"criu_ms"`
	CRIUMappedMS *float64 `json:"criu_mapped_ms"`
	// ColdCache is each after the page cache was emptied, by mode.
	ColdCache map[string]*float64 `json:"cold_cache_ms"`
	// Runs are the single times behind the medians, in their order.
	Runs map[string][]float64 `json:"runs_ms"`
	// Ratios are stock/MODE and cold/MODE.
	Ratios map[string]*ratio `json:"ratios"`
	// Why says of a mode that has no time why it has none.
	Why map[string]string `json:"why,omitempty"`
	// ResidentBytes is what the program held when it was captured, CheckpointBytes what its
	// checkpoint takes.
	ResidentBytes   int64 `json:"resident_bytes"`
	CheckpointBytes int64 `json:"checkpoint_bytes"`
	Processes       int   `json:"processes"`
}

// mode is one way to restore.
type mode struct {
	name string
	// once restores once, removes the task, and returns the milliseconds to the first answer.
	once func(context.Context) (float64, error)
}

// measureRestores measures all programs, one after the other.
func measureRestores(ctx context.Context, b *bench) error {
	for _, p := range programs() {
		wanted := len(b.programs) == 0 && (!b.quick || p.name == smallProgram().name) || slices.Contains(b.programs, p.name)
		if !wanted || ctx.Err() != nil {
			continue
		}
		r := &restore{Title: p.title, ColdCache: map[string]*float64{}, Runs: map[string][]float64{}, Ratios: map[string]*ratio{}, Why: map[string]string{}}
		b.results.Restore[p.name] = r
		if err := b.measureRestore(ctx, p, r); err != nil {
			b.failed("restore "+p.name, err)
		}
	}
	return nil
}

func (b *bench) measureRestore(ctx context.Context, p *program, r *restore) (retErr error) {
	b.say("%s: image", p.name)
	if err := b.load(ctx, p); err != nil {
		return err
	}
	var modes []mode
	byHand := newByHand(b, p)
	defer func() { retErr = errors.Join(retErr, byHand.close(context.WithoutCancel(ctx))) }()
	if m, err := b.prepareStock(ctx, p, r, byHand); err != nil {
		b.failed("restore "+p.name+", stock", err)
		r.Why["stock"] = brief(err)
	} else {
		modes = append(modes, m)
		defer func() { retErr = errors.Join(retErr, b.stockForget(ctx, p)) }()
	}
	ours, names, err := b.prepareOurs(ctx, p, r)
	defer func() { retErr = errors.Join(retErr, b.forget(ctx, names...)) }()
	if err != nil {
		return err
	}
	modes = append(modes, ours...)
	modes = append(modes, byHand.modes(ctx, r)...)
	b.alternate(ctx, p, r, modes)
	r.sum()
	b.say("%s: %s", p.name, r)
	return nil
}

// prepareStock boots and captures the program under the stock runtime.
func (b *bench) prepareStock(ctx context.Context, p *program, r *restore, byHand *byHand) (mode, error) {
	l, err := b.boot(ctx, p, measure.StockRuntime)
	if err != nil {
		return mode{}, errors.Join(err, b.removeHalf(ctx, l.ID))
	}
	r.note("cold_stock", measure.Milliseconds(l.Took))
	if byHand.spec, err = b.specOf(l.ID); err == nil {
		_, err = b.stockTake(ctx, p, l.ID)
	}
	if err := errors.Join(err, b.remove(ctx, l.ID)); err != nil {
		return mode{}, err
	}
	return mode{"stock", func(ctx context.Context) (float64, error) {
		l, err := b.stockBack(ctx, p, p.answer)
		if err != nil {
			return 0, err
		}
		return measure.Milliseconds(l.Took), b.remove(ctx, l.ID)
	}}, nil
}

// prepareOurs boots the program under our runtime twice, and registers a checkpoint in the copy
// form, and another in the form that the runtime chooses. It returns the modes
// that there are, and the checkpoints' names.
func (b *bench) prepareOurs(ctx context.Context, p *program, r *restore) (modes []mode, names []string, err error) {
	take := func(memory string) (checkpoint.Entry, error) {
		name := p.name + "-" + memory
		l, err := b.boot(ctx, p, harness.Runtime, annotation("memory", memory), annotation("restore", "Never"))
		if err != nil {
			return checkpoint.Entry{}, errors.Join(err, b.removeHalf(ctx, l.ID))
		}
		r.note("cold", measure.Milliseconds(l.Took))
		u, err := usageOf(treeOf(l.PID))
		if err != nil {
			return checkpoint.Entry{}, errors.Join(err, b.remove(ctx, l.ID))
		}
		r.ResidentBytes = u.RSS
		c, err := b.take(ctx, l.ID, name)
		if err == nil {
			names = append(names, name)
		}
		return c.entry, errors.Join(err, b.remove(ctx, l.ID))
	}
	if _, err := take("copy"); err != nil {
		return nil, names, err
	}
	auto, err := take("auto")
	if err != nil {
		return nil, names, err
	}
	r.CheckpointBytes, r.Processes = auto.Checkpoint.Bytes(), auto.Checkpoint.Source.Processes
	if auto.Checkpoint.Memory.Form != checkpoint.MemoryMapped {
		r.Why["mapped"] = auto.Checkpoint.Memory.Reason
	}
	way := func(memory checkpoint.MemoryMode, name string) mode {
		return mode{string(memory), func(ctx context.Context) (float64, error) {
			l, err := b.back(ctx, p, name, memory, p.answer)
			if err != nil {
				return 0, err
			}
			if !b.cacheIsCold {
				b.notePhases(p.name, l)
			}
			return measure.Milliseconds(l.Took), b.remove(ctx, l.ID)
		}}
	}
	modes = append(modes, way(checkpoint.MemoryCopy, p.name+"-copy"), way("lazy", p.name+"-copy"))
	if r.Why["mapped"] == "" {
		// Without a name the runtime finds the newest by itself, as for any user.
		modes = append(modes, way(checkpoint.MemoryMapped, ""))
	}
	return modes, names, nil
}

// alternate measures all modes in rounds: with a warm page cache, after one restore each that
// does not count, and then with an empty one.
func (b *bench) alternate(ctx context.Context, p *program, r *restore, modes []mode) {
	warm, cold := b.rounds(5, 1), b.rounds(2, 1)
	defer func() { b.cacheIsCold = false }()
	for n := range 1 + warm + cold {
		for i := 0; i < len(modes); i++ {
			if ctx.Err() != nil {
				return
			}
			m := modes[i]
			if err := b.rest(ctx); err != nil {
				b.failed("restore "+p.name, err)
				return
			}
			isCold := n > warm
			if b.cacheIsCold = isCold; isCold {
				if err := b.dropCache(); err != nil {
					b.failed("restore "+p.name, err)
					return
				}
			}
			ms, err := m.once(ctx)
			switch {
			case err != nil && n == 0 && m.name == "lazy" && refused(err):
				r.Why[m.name] = "it is not offered: " + brief(err)
			case err != nil:
				b.failed("restore "+p.name+", "+m.name, err)
				r.Why[m.name] = brief(err)
			case isCold:
				r.note("cold cache "+m.name, ms)
				continue
			case n > 0:
				r.note(m.name, ms)
				continue
			default:
				continue
			}
			modes = slices.Delete(modes, i, i+1)
			i--
		}
	}
}

// refused says that a runtime does not offer what was asked for.
func refused(err error) bool { return strings.Contains(err.Error(), "invalid argument") }

func (r *restore) note(what string, ms float64) { r.Runs[what] = append(r.Runs[what], round(ms)) }

// sum makes medians and ratios of the runs.
func (r *restore) sum() {
	for name, to := range r.warm() {
		*to = median(r.Runs[name])
	}
	for name, runs := range r.Runs {
		if m, ok := strings.CutPrefix(name, "cold cache "); ok {
			r.ColdCache[m] = median(runs)
		}
	}
	for _, m := range []string{"copy", "lazy", "mapped"} {
		runs := r.Runs[m]
		if len(runs) == 0 {
			continue
		}
		r.Ratios["stock/"+m] = ratioOf(r.Runs["stock"], runs)
		r.Ratios["runc/"+m] = ratioOf(r.Runs["runc"], runs)
		r.Ratios["stock/"+m+" cold cache"] = ratioOf(r.Runs["cold cache stock"], r.Runs["cold cache "+m])
		// There are fewer boots than restores, and nothing is paired.
		if cold := median(r.Runs["cold"]); cold != nil {
			all := make([]float64, len(runs))
			for i := range all {
				all[i] = *cold
			}
			r.Ratios["cold/"+m] = ratioOf(all, runs)
		}
	}
}

// warm are the fields that are medians, by the names of their runs.
func (r *restore) warm() map[string]**float64 {
	return map[string]**float64{
		"cold": &r.ColdMS, "cold_stock": &r.ColdStockMS, "stock": &r.StockMS, "runc": &r.RuncMS, "copy": &r.CopyMS,
		"lazy": &r.LazyMS, "mapped": &r.MappedMS, "criu": &r.CRIUMS, "criu mapped": &r.CRIUMappedMS,
	}
}

// best is the mode that the runtime chooses, and its time: mapped, or else copy.
func (r *restore) best() (string, *float64) {
	if r.MappedMS != nil {
		return "mapped", r.MappedMS
	}
	return "copy", r.CopyMS
}

func (r *restore) String() string {
	var parts []string
	for _, name := range []string{"cold", "stock", "runc", "copy", "lazy", "mapped", "criu", "criu mapped"} {
		if v := *r.warm()[name]; v != nil {
			parts = append(parts, fmt.Sprintf("%s %s", name, measure.Duration(*v)))
		}
	}
	return strings.Join(parts, ", ")
}

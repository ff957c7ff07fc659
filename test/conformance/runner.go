package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// runner runs columns.
type runner struct {
	settings settings
	around   *surroundings
	suite    *suite
	// runs counts the runs of the suite.
	runs int
}

// breaking are the tests that want a runtime which breaks on demand. With the
// stock shim that is runc-fp, which they name; ours runs no runc, so it is a
// build of ours that does the same at the same places.
var breaking = []string{"TestIssue9103", "TestIssue10589"}

// run runs tests with the column's shim. What is left behind is returned, and
// removed. label tells the logs of several runs of a column apart.
func (r *runner) run(ctx context.Context, c column, tests []string, label string) (result, leftovers, error) {
	parts := []part{{column: c, tests: tests, shim: ourShim(), log: c.key + label}}
	if c.key != stock.key {
		broken := func(name string) bool { return slices.Contains(breaking, name) }
		parts = append(parts, part{
			column: c, shim: filepath.Join(r.settings.failpoint, shimProgram), log: c.key + label + "-failpoint",
			tests: slices.DeleteFunc(slices.Clone(tests), func(name string) bool { return !broken(name) }),
		})
		parts[0].tests = slices.DeleteFunc(slices.Clone(tests), broken)
	}
	res := result{}
	var left leftovers
	for _, p := range parts {
		if len(p.tests) == 0 {
			continue
		}
		l, err := r.runPart(ctx, p, res)
		if err != nil {
			return nil, left, fmt.Errorf("column %s: %w", c.key, err)
		}
		left.add(l)
	}
	return res, left, nil
}

// part is one start of the suite.
type part struct {
	column column
	tests  []string
	// shim is the file that is installed as ours, where ours is.
	shim string
	// log is the name of the log.
	log string
}

func (r *runner) runPart(ctx context.Context, p part, res result) (leftovers, error) {
	r.runs++
	path, err := p.column.install(r.around.path(fmt.Sprintf("bin%d", r.runs)), p.shim, r.around.tools)
	if err != nil {
		return leftovers{}, err
	}
	log, err := os.Create(filepath.Join(r.settings.logs, p.log+".log"))
	if err != nil {
		return leftovers{}, fmt.Errorf("open the log: %w", err)
	}
	defer log.Close()
	shown := newProgress(p.log, len(p.tests)*r.settings.count)
	err = r.suite.run(ctx, path, p.column.runtime, log, p.tests, r.settings.count, func(name string, o outcome) {
		res.add(name, o)
		shown.ended(name, o)
	})
	shown.done()
	var left leftovers
	if err == nil {
		left, err = r.around.settle(ctx)
	}
	return left, errors.Join(err, r.around.clear(context.WithoutCancel(ctx)))
}

// retry runs tests that were worse than with the stock shim once more, alone,
// with either, and puts what they came to with ours into ours.
func (r *runner) retry(ctx context.Context, c column, tests []string, ours result) ([]retried, error) {
	fmt.Printf("%s: once more, alone, with the stock shim and with ours: %q\n", c.key, tests)
	const label = "-again"
	before, _, err := r.run(ctx, stock, tests, label+"-"+c.key)
	if err != nil {
		return nil, err
	}
	again, _, err := r.run(ctx, c, tests, label)
	if err != nil {
		return nil, err
	}
	ours.replace(tests, again)
	var all []retried
	for _, t := range tests {
		all = append(all, retried{Column: c.key, Test: t, Runc: before[t], Ours: again[t]})
		fmt.Printf("%s: %s once more: %s with the stock shim, %s with ours\n", c.key, t, before[t], again[t])
	}
	return all, nil
}

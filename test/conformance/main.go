// Command conformance runs containerd's own client test-suite with the stock
// shim and with ours, prints the results side by side, writes them to a file,
// and fails if a test that passes with the stock shim does not pass with ours.
// See docs/conformance.md.
//
//	conformance [--out FILE] [--logs DIR] [--failpoint DIR] [--count N] [TEST...]
//
// It is started by `make conformance`, which builds what it needs. It lives in
// namespaces of its own, with a registry of its own, and leaves nothing behind.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/test/harness"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM, unix.SIGHUP)
	err := run(ctx, os.Args[1:])
	stop()
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return
	case !errors.Is(err, errInside):
		fmt.Fprintln(os.Stderr, "conformance:", err)
	}
	os.Exit(1)
}

// settings is the command line.
type settings struct {
	out, logs, failpoint string
	// tests are those to run, all if there are none, each count times.
	tests []string
	count int
}

func parseArgs(args []string) (settings, error) {
	var s settings
	f := flag.NewFlagSet("conformance", flag.ContinueOnError)
	f.StringVar(&s.out, "out", "out/conformance.json", "write the results to this `file`")
	f.StringVar(&s.logs, "logs", "out/conformance", "write what the suite prints into this `directory`")
	f.StringVar(&s.failpoint, "failpoint", "out/conformance/failpoint", "`directory` with the shim that breaks on demand")
	f.IntVar(&s.count, "count", 1, "run each test `N` times; it passes if it passes every time")
	err := f.Parse(args)
	if err == nil && s.count < 1 {
		err = fmt.Errorf("run each test %d times: --count must be 1 or more", s.count)
	}
	if err != nil {
		return s, err
	}
	s.tests = f.Args()
	for _, path := range []*string{&s.out, &s.logs, &s.failpoint} {
		var e error
		*path, e = filepath.Abs(*path)
		err = errors.Join(err, e)
	}
	return s, err
}

func run(ctx context.Context, args []string) (err error) {
	set, err := parseArgs(args)
	if err != nil {
		return err
	}
	roots, entered, err := enter(ctx)
	if err != nil || !entered {
		return err
	}
	s, err := surround(ctx, os.Getenv(harness.EnvTools), roots)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.remove()) }()
	t, err := newSuite(ctx, s)
	if err != nil {
		return err
	}
	if len(set.tests) > 0 {
		for _, name := range set.tests {
			if !slices.Contains(t.names, name) {
				return fmt.Errorf("run test %q: the suite has none of that name", name)
			}
		}
		t.names = set.tests
	}
	if err := os.MkdirAll(set.logs, 0o755); err != nil {
		return fmt.Errorf("make a directory for logs: %w", err)
	}
	return compare(ctx, set, s, t)
}

// unrelated are tests that fail now and then, whatever the shim, because they start
// none: twice in a row they say nothing about ours.
var unrelated = map[string]string{
	"TestContentClient": "it starts no container, and containerd's content store has a race",
}

// compare runs all columns and judges them.
func compare(ctx context.Context, set settings, s *surroundings, t *suite) error {
	r := &runner{settings: set, around: s, suite: t}
	results, rep := map[string]result{}, report{columns: map[string]summary{}}
	var worse, left []string
	for _, c := range columns {
		res, l, err := r.run(ctx, c, t.names, "")
		if err != nil {
			return err
		}
		results[c.key] = res
		if !l.empty() {
			fmt.Printf("%s left behind:\n%s", c.key, l)
			// A test that fails half way does not clean up.
			if c.key != stock.key && len(res.summarise(t.names).Failed) == 0 {
				left = append(left, c.key)
			}
		}
		names := res.worseThan(results[stock.key])
		if len(names) > 0 {
			again, err := r.retry(ctx, c, tops(names), res)
			if err != nil {
				return err
			}
			rep.retried = append(rep.retried, again...)
			for _, name := range res.worseThan(results[stock.key]) {
				if why := unrelated[top(name)]; why != "" {
					fmt.Printf("%s: %s does not count: %s\n", c.key, name, why)
					continue
				}
				worse = append(worse, c.key+": "+name)
			}
		}
		rep.columns[c.key] = res.summarise(t.names)
	}
	if err := rep.write(set.out); err != nil {
		return err
	}
	fmt.Printf("\n%s\nResults are in %s, what the suite printed in %s.\n", table(columns, results, t.names), set.out, set.logs)
	if missed := s.registry.notFound(); len(missed) > 0 {
		fmt.Printf("Asked for and not there: %s\n", strings.Join(missed, ", "))
	}
	switch {
	case len(worse) > 0:
		return fmt.Errorf("pass what the stock shim passes:\n  %s", strings.Join(worse, "\n  "))
	case len(left) > 0:
		return fmt.Errorf("leave nothing behind: see above, %s", strings.Join(left, ", "))
	case len(rep.columns[stock.key].Failed) == len(t.names):
		return errors.New("compare the shims: every test failed with the stock one, the surroundings are wrong")
	}
	return nil
}

// Command demo shows what the runtime is for: a program that takes seconds to
// boot, and starts in a fraction of one from a checkpoint of itself.
//
// It works on a containerd of its own (see test/harness), prints what it does
// while it does it, ends with a table, writes the same figures to a file, and
// leaves nothing behind, also if it fails or is interrupted:
//
//	demo [--runs N] [--out FILE]
//
// It is started by `make demo`, which builds what it needs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/test/measure"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM, unix.SIGHUP)
	err := run(ctx, os.Args[1:], os.Stdout)
	interrupted := ctx.Err() != nil
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil && interrupted:
		fmt.Fprintf(os.Stderr, "demo: interrupted (%v)\n", err)
		os.Exit(exitInterrupted)
	case err != nil:
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// exitInterrupted is what shells report of a command that Ctrl-C ended.
const exitInterrupted = 130

// settings is the command line.
type settings struct {
	// runs is how often each restore is measured; 1 or more.
	runs int
	// out is the file that gets the figures.
	out string
}

func parse(args []string) (settings, error) {
	var s settings
	f := flag.NewFlagSet("demo", flag.ContinueOnError)
	f.IntVar(&s.runs, "runs", 3, "measure each restore `N` times and take the median")
	f.StringVar(&s.out, "out", filepath.Join("out", "demo.json"), "write the figures to this `file`")
	if err := f.Parse(args); err != nil {
		return s, err
	}
	switch {
	case f.NArg() > 0:
		return s, fmt.Errorf("take arguments %q: there are none but flags", f.Args())
	case s.runs < 1:
		return s, fmt.Errorf("measure %d times: --runs must be 1 or more", s.runs)
	}
	return s, nil
}

// run shows everything and reports it.
func run(ctx context.Context, args []string, out io.Writer) error {
	s, err := parse(args)
	if err != nil {
		return err
	}
	p := newProgress(out, isTerminal(out))
	f, err := show(ctx, s, p)
	if err != nil {
		return err
	}
	if err := measure.WriteJSON(s.out, f); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "\n%s\nThese figures and more are in %s.\n", f.table(), s.out)
	return err
}

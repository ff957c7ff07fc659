// Command bench measures what the runtime is for: how long starts take, beside the stock
// runtime, beside runc by hand and beside CRIU alone, what clones cost, and what a capture does.
//
// It works on a containerd of its own (see test/harness), measures what is compared in
// alternation, tells what it does while it does it, and leaves nothing behind:
//
//	bench [-quick] [-only boot,restore,scale,clones] [-out FILE] [-doc FILE]
//
// A part that fails is told of, in the results too, and ends the program with status 1; the
// other parts are measured all the same. It is started by `make bench`, which builds what it needs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
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
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// settings is the command line.
type settings struct {
	// quick measures less, and less often: for whether it works.
	quick bool
	// only are the names of the parts to measure; none for all.
	only []string
	// out is the file that gets the results, doc the one that shows them to people; empty for none.
	out, doc string
	// programs are those of the part restore; none for all.
	programs []string
}

func parse(args []string) (settings, error) {
	var s settings
	var only, programs string
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.BoolVar(&s.quick, "quick", false, "measure less, and less often")
	f.StringVar(&only, "only", "", "measure these `parts` alone, separated by commas: "+strings.Join(partNames(), ", "))
	f.StringVar(&programs, "programs", "", "restore these `programs` alone, separated by commas: "+strings.Join(programNames(), ", "))
	f.StringVar(&s.out, "out", filepath.Join("out", "bench.json"), "write the results to this `file`")
	f.StringVar(&s.doc, "doc", "", "show the results in this `file`, between its markers, and in plots beside it")
	if err := f.Parse(args); err != nil {
		return s, err
	}
	if f.NArg() > 0 {
		return s, fmt.Errorf("take arguments %q: there are none but flags", f.Args())
	}
	var err error
	if s.only, err = names("-only", only, partNames()); err != nil {
		return s, err
	}
	s.programs, err = names("-programs", programs, programNames())
	return s, err
}

// names splits what a flag lists.
func names(flag, list string, known []string) ([]string, error) {
	if list == "" {
		return nil, nil
	}
	all := strings.Split(list, ",")
	for _, name := range all {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("%s %q: there is no %q, but %s", flag, list, name, strings.Join(known, ", "))
		}
	}
	return all, nil
}

func run(ctx context.Context, args []string) error {
	s, err := parse(args)
	if err != nil {
		return err
	}
	// CRIU alone restores a program into our own network namespace.
	if err := harness.EnterPrivateNetwork(); err != nil {
		return err
	}
	// A descriptor that we were given by accident would be a part of what CRIU dumps.
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("mark inherited descriptors: %w", err)
	}
	b, err := start(ctx, s)
	if err != nil {
		return err
	}
	b.measure(ctx)
	if err := b.end(context.WithoutCancel(ctx)); err != nil {
		b.failed("end", err)
	}
	err = b.results.write(s.out)
	if s.doc != "" {
		err = errors.Join(err, b.results.show(s.doc))
	}
	if n := len(b.results.Failures); n > 0 {
		err = errors.Join(err, fmt.Errorf("%d measurements failed, the first: %s", n, b.results.Failures[0]))
	}
	return err
}

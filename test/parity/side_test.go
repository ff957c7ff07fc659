package parity

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/grpc/status"

	"github.com/containerd-snap/snap/test/harness"
)

// deadline bounds everything that a test waits for.
const deadline = 40 * time.Second

// The runtimes that are compared.
const (
	stock = "io.containerd.runc.v2"
	ours  = harness.Runtime
)

// side is one runtime in one scenario, with what was seen of it.
type side struct {
	*testing.T
	// runtime is its name for containerd, path that of another program that is to
	// be run under this name; empty for the one that containerd finds.
	runtime, path string
	// seen is what was seen, in its order.
	seen []observation
}

type observation struct{ what, is string }

// see notes what was seen. What is not the same from run to run (pids, times,
// names of containers) must not be in it.
func (s *side) see(what, format string, args ...any) {
	is := format
	if len(args) > 0 {
		is = fmt.Sprintf(format, args...)
	}
	s.seen = append(s.seen, observation{what, is})
}

// seeError notes an error by its class, and which of words are in its text.
func (s *side) seeError(what string, err error, words ...string) {
	is := class(err)
	for _, w := range words {
		if err != nil && !strings.Contains(err.Error(), w) {
			is += fmt.Sprintf(", not saying %q", w)
		}
	}
	if err != nil {
		s.Logf("%s: %s: %v", s.runtime, what, err)
	}
	s.see(what, "%s", is)
}

// class names the class of an error, which is what clients go by.
func class(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, context.DeadlineExceeded):
		// Told by the client itself, which may be quicker than the server.
		return "DeadlineExceeded"
	}
	if _, ok := status.FromError(err); ok {
		// It comes from a shim itself; a client of containerd has decoded its errors.
		err = errgrpc.ToNative(err)
	}
	for name, is := range map[string]func(error) bool{
		"InvalidArgument":    errdefs.IsInvalidArgument,
		"NotFound":           errdefs.IsNotFound,
		"AlreadyExists":      errdefs.IsAlreadyExists,
		"FailedPrecondition": errdefs.IsFailedPrecondition,
		"Unavailable":        errdefs.IsUnavailable,
		"NotImplemented":     errdefs.IsNotImplemented,
		"Canceled":           errdefs.IsCanceled,
		"DeadlineExceeded":   errdefs.IsDeadlineExceeded,
		"Internal":           errdefs.IsInternal,
	} {
		if is(err) {
			return name
		}
	}
	return "Unknown"
}

// isStock says that it is the stock shim, and not ours under its name.
func (s *side) isStock() bool { return s.runtime == stock && s.path == "" }

// renamed are scenarios that are also run with our shim under the stock one's name,
// as runtime_path makes it: nothing may depend on the name.
var renamed = []string{"created", "running", "stopped", "exec", "a whole life", "out of memory", "streams", "terminal", "hooks", "plain", "stats", "no such program"}

// scenario is what is done with each runtime.
type scenario func(s *side)

// compare runs a scenario with both runtimes.
func compare(t *testing.T, name string, f scenario) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		sides := []*side{{runtime: stock}, {runtime: ours}}
		if slices.Contains(renamed, name) {
			sides = append(sides, &side{runtime: stock, path: filepath.Join(node.Bin, "containerd-shim-snap-v2")})
		}
		for _, s := range sides {
			t.Run(s.runtime+filepath.Base(s.path), func(t *testing.T) {
				s.T = t
				f(s)
			})
		}
		if !t.Failed() {
			judge(t, name, sides[0].seen, sides[1].seen)
		}
		if len(sides) > 2 && !slices.Equal(sides[1].seen, sides[2].seen) {
			t.Errorf("under the stock shim's name ours shows\n%v, under its own\n%v", sides[2].seen, sides[1].seen)
		}
	})
}

// judge fails for each difference that is not declared, and for each declared
// one that is none.
func judge(t *testing.T, name string, a, b []observation) {
	t.Helper()
	things := func(all []observation) (out []string) {
		for _, o := range all {
			out = append(out, o.what)
		}
		return out
	}
	if x, y := things(a), things(b); !slices.Equal(x, y) {
		t.Fatalf("a runtime showed other things than the other:\nstock %q\nours  %q", x, y)
	}
	for n := range a {
		what, x, y := a[n].what, a[n].is, b[n].is
		d, declared := differences[name][what]
		switch {
		case declared && (x != d.stock || y != d.ours):
			t.Errorf("%s: stock %q, ours %q; declared as %q and %q (%s)", what, x, y, d.stock, d.ours, d.name)
		case !declared && x != y && !betterClass(what, x, y):
			t.Errorf("%s:\nstock %s\nours  %s", what, x, y)
		}
	}
}

// context returns one that ends with the test, and after the deadline.
func (s *side) context() context.Context {
	ctx, cancel := context.WithTimeout(s.Context(), deadline)
	s.Cleanup(cancel)
	return ctx
}

func (s *side) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatalf("%s: %v", s.runtime, err)
	}
}

// eventually calls check until it returns nil, and fails after the deadline.
func (s *side) eventually(check func() error) {
	s.Helper()
	ctx := s.context()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			s.Fatalf("%s: %v", s.runtime, errors.Join(err, ctx.Err()))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

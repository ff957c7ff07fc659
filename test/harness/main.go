package harness

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"
)

// setUpTimeout bounds the set-up of a package of tests.
const setUpTimeout = 2 * time.Minute

// Suite is a package of tests that share something.
type Suite struct {
	// Name is the package's, for messages.
	Name string
	// Network gives the tests a network namespace, too: see EnterPrivateNetwork.
	Network bool
	// SetUp makes what the tests share. It may write to dir, which goes with them. What it
	// returns undoes the rest, and fails the package if something was left; nil for nothing.
	SetUp func(ctx context.Context, dir string) (tearDown func() error, err error)
}

// Main runs the tests of a package, given as its *testing.M, in a mount namespace of
// their own, and ends the process. It is all that a TestMain does.
func Main(tests interface{ Run() int }, s Suite) {
	flag.Parse()
	code, err := s.run(tests)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", s.Name, err)
		code = 1
	}
	os.Exit(code)
}

func (s Suite) run(tests interface{ Run() int }) (code int, retErr error) {
	enter := EnterPrivate
	if s.Network {
		enter = EnterPrivateNetwork
	}
	if err := enter(); err != nil {
		return 1, err
	}
	dir, err := os.MkdirTemp("", "snap-"+s.Name+"-")
	if err != nil {
		return 1, err
	}
	defer func() { retErr = errors.Join(retErr, os.RemoveAll(dir)) }()
	if s.SetUp != nil {
		ctx, cancel := context.WithTimeout(context.Background(), setUpTimeout)
		defer cancel()
		tearDown, err := s.SetUp(ctx, dir)
		if err != nil {
			return 1, err
		}
		if tearDown != nil {
			defer func() { retErr = errors.Join(retErr, tearDown()) }()
		}
	}
	return tests.Run(), nil
}

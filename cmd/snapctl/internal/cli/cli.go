// Package cli is the command line: it reads arguments and the configuration, has
// the packages beside it do the work, and turns errors into messages and exit codes.
// It has no state and no locks.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/criu"
	"github.com/containerd-snap/snap/checkpoint/host"
	"github.com/containerd-snap/snap/checkpoint/store"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/progress"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/report"
	"github.com/containerd-snap/snap/config"
	"github.com/containerd-snap/snap/oci/spec"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// Env is what a run of the command gets from outside.
type Env struct {
	// Args are the arguments without the program's name.
	Args           []string
	Stdout, Stderr io.Writer
	// Progress is where progress is shown; the zero value for nowhere.
	Progress progress.Output
	// Version is that of the program.
	Version string
	Now     func() time.Time
}

// Main runs the command and returns its exit code. When ctx ends, so does the work.
func Main(ctx context.Context, env Env) int {
	a := &app{env: env}
	root := a.command()
	root.SetArgs(env.Args)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	cmd, err := root.ExecuteContextC(ctx)
	var usage *usageError
	switch {
	case err == nil:
		return exitOK
	case !a.begun, errors.As(err, &usage):
		// Cobra itself returns errors only for arguments that it cannot read.
		fmt.Fprintf(env.Stderr, "snapctl: %v\nRun '%s --help' for usage.\n", err, cmd.CommandPath())
		return exitUsage
	}
	complain(env.Stderr, err)
	return exitFailed
}

// complain writes an error, which may consist of several, a line each.
func complain(w io.Writer, err error) {
	for line := range strings.SplitSeq(err.Error(), "\n") {
		fmt.Fprintf(w, "snapctl: %s\n", line)
	}
}

// usageError is an argument that cannot be right, whatever the node is like.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// app is one run of the command.
type app struct {
	env Env
	// root is the value of --root; empty if it was not given.
	root string
	// begun says that the arguments were read and a command runs.
	begun bool
}

// storeRoot returns the store's directory.
func (a *app) storeRoot() (string, error) {
	if a.root != "" {
		root, err := filepath.Abs(a.root)
		if err != nil {
			return "", &usageError{fmt.Errorf("read --root: %w", err)}
		}
		return root, nil
	}
	cfg, err := config.Load()
	return cfg.Root, err
}

// defaults are the settings of containers whose annotations are silent. An error was told
// when the store was opened, or --root takes the place of what cannot be read.
func (a *app) defaults() spec.Settings {
	cfg, err := config.Load()
	if err != nil {
		return spec.DefaultSettings()
	}
	return cfg.Settings()
}

// openStore opens the node's store. A root that the user gives must exist: mistyped, it
// must not become a store.
func (a *app) openStore() (*store.Store, error) {
	root, err := a.storeRoot()
	if err != nil {
		return nil, err
	}
	if a.root != "" {
		if _, err := os.Stat(root); err != nil {
			return nil, fmt.Errorf("open the store that --root names: %w; the runtime makes a store when it starts its first container", err)
		}
	}
	return store.Open(root)
}

// report returns what writes about the node's store.
func (a *app) report(ctx context.Context, cmd *cobra.Command) (*report.Report, error) {
	st, err := a.openStore()
	if err != nil {
		return nil, err
	}
	return &report.Report{Store: st, Out: cmd.OutOrStdout(), Now: a.env.Now(), Host: hostFacts(ctx, st)}, nil
}

// hostFacts returns what this node offers; nil if that is not known, which is for
// doctor to say. It is not known, either, if PATH holds no CRIU: that of the
// operator may differ from containerd's, and is no reason to call a checkpoint unfit.
func hostFacts(ctx context.Context, st *store.Store) *checkpoint.HostFacts {
	bin, err := criu.Find()
	if err != nil {
		return nil
	}
	bin.CacheDir = st.Root()
	version, err := bin.Version(ctx)
	if err != nil {
		return nil
	}
	facts, err := host.Facts(version)
	if err != nil {
		return nil
	}
	return &facts
}

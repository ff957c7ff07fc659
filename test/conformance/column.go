package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd-snap/snap/test/harness"
)

// column is one run of the whole suite.
type column struct {
	// key is its name in the report.
	key string
	// runtime is what tests use that name none. Others name the runc runtime.
	runtime string
	// snap installs ours beside the stock shim, asRunc under its name in its place.
	snap, asRunc bool
}

const runcRuntime = "io.containerd.runc.v2"

// stock is what the others are compared with.
var stock = column{key: "runc", runtime: runcRuntime}

// columns are all runs.
var columns = []column{
	stock,
	{key: "snap", runtime: harness.Runtime, snap: true},
	{key: "snap_as_runc", runtime: runcRuntime, asRunc: true},
}

const (
	shimProgram  = "containerd-shim-snap-v2"
	stockProgram = "containerd-shim-runc-v2"
)

// ourShim is the shim as it was built.
func ourShim() string { return filepath.Join(os.Getenv(harness.EnvBin), shimProgram) }

// The directories that a program of the host, which the suite or CRIU calls, may lie in.
var hostPath = []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}

// install fills the directory dir with the column's programs, and returns the
// PATH. tools is what tools/setup/conformance made.
func (c column) install(dir, shim, tools string) (string, error) {
	programs := map[string]string{"runc-fp": filepath.Join(tools, "bin", "runc-fp")}
	names := []string{"containerd", "ctr", "runc"}
	if !c.asRunc {
		names = append(names, stockProgram)
	}
	var errs []error
	for _, name := range names {
		path, err := harness.Tool(name)
		errs = append(errs, err)
		programs[name] = path
	}
	criu, err := exec.LookPath("criu")
	errs = append(errs, err)
	programs["criu"] = criu
	if c.snap {
		programs[shimProgram] = shim
	}
	errs = append(errs, os.Mkdir(dir, 0o755))
	for name, path := range programs {
		errs = append(errs, os.Symlink(path, filepath.Join(dir, name)))
	}
	if c.asRunc {
		// A copy, as an installation is: a link would show the real name.
		errs = append(errs, copyProgram(shim, filepath.Join(dir, stockProgram)))
	}
	if err := errors.Join(errs...); err != nil {
		return "", fmt.Errorf("install programs: %w", err)
	}
	return strings.Join(slices.Concat([]string{dir}, hostPath), ":"), nil
}

func copyProgram(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// The environment variables that say where programs are.
const (
	// EnvBin names the directory with containerd-shim-snap-v2 and snapctl.
	EnvBin = "SNAP_BIN"
	// EnvTools names the directory with bin/ (containerd, ctr and, for
	// comparisons, runc and its shim) and images/.
	EnvTools = "SNAP_TOOLS"
)

// Runtime is the name of our runtime for containerd.
const Runtime = "io.containerd.snap.v2"

const (
	shimProgram    = "containerd-shim-snap-v2"
	snapctlProgram = "snapctl"
	criuProgram    = "criu"
)

// criuHelpers are the host's programs that CRIU, or the wrapper that starts
// it, may call; those that the host lacks are left out.
var criuHelpers = []string{
	"ip", "iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore",
	"nft", "tar", "gzip", "sh",
}

// stockPrograms are those of the stock runtime.
var stockPrograms = []string{"runc", "containerd-shim-runc-v2"}

// tools says where programs are.
type tools struct{ bin, tools string }

func findTools() (tools, error) {
	t := tools{bin: os.Getenv(EnvBin), tools: os.Getenv(EnvTools)}
	var errs []error
	for name, dir := range map[string]string{EnvBin: t.bin, EnvTools: t.tools} {
		if !filepath.IsAbs(dir) {
			errs = append(errs, fmt.Errorf("environment variable %s=%q is not an absolute path: start this with make, which sets it", name, dir))
		}
	}
	return t, errors.Join(errs...)
}

// ours is the path of one of our programs.
func (t tools) ours(name string) (string, error) {
	return program(filepath.Join(t.bin, name), "make build")
}

// tool is the path of a program that the set-up installed.
func (t tools) tool(name string) (string, error) {
	return program(filepath.Join(t.tools, "bin", name), "make setup")
}

func program(path, remedy string) (string, error) {
	if _, err := exec.LookPath(path); err != nil {
		return "", fmt.Errorf("find %s, which %q makes: %w", filepath.Base(path), remedy, err)
	}
	return path, nil
}

// Tool is the path of a program that the set-up installed, such as ctr or images.
func Tool(name string) (string, error) {
	t, err := findTools()
	if err != nil {
		return "", err
	}
	return t.tool(name)
}

// fillPath fills dir, the PATH of a node's containerd, with links to programs.
// There is no runc among them, unless the stock runtime is asked for: ours must
// not need it.
func (t tools) fillPath(dir string, o Options) error {
	links := map[string]string{}
	var err error
	if links[shimProgram], err = t.ours(shimProgram); err != nil {
		return err
	}
	switch o.CRIU {
	case NoCRIU:
	case "":
		if links[criuProgram], err = exec.LookPath(criuProgram); err != nil {
			return fmt.Errorf("find criu, which \"make setup\" installs: %w", err)
		}
	default:
		links[criuProgram] = o.CRIU
	}
	if o.Stock {
		for _, name := range stockPrograms {
			if links[name], err = t.tool(name); err != nil {
				return err
			}
		}
	}
	for _, name := range criuHelpers {
		if path, err := exec.LookPath(name); err == nil {
			links[name] = path
		}
	}
	for name, path := range links {
		if path, err = filepath.Abs(path); err != nil {
			return err
		}
		if err := os.Symlink(path, filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("fill the node's PATH: %w", err)
		}
	}
	return nil
}

package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/criu"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/daemon"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/dryrun"
	"github.com/containerd-snap/snap/config"
	"github.com/containerd-snap/snap/oci/spec"
)

// askTimeout bounds each question to containerd, and the dump of its configuration.
const askTimeout = 10 * time.Second

// Containerd is the daemon whose runtime is looked at.
type Containerd struct {
	// Address is its socket; Err says why it did not answer.
	Address string
	Err     error
	Version string
	// Env is its environment, by name, which its shims inherit; nil if it is not known.
	Env map[string]string
	// Capabilities is its set of effective ones, and CapabilitiesKnown that it could be read.
	Capabilities      uint64
	CapabilitiesKnown bool
	// ShimVersion is that of the shim that it finds; ShimErr says why it finds none.
	ShimVersion string
	ShimErr     error
	// Handlers are those of CRI for this runtime; HandlersErr says why they are unknown.
	Handlers    []Handler
	HandlersErr error
}

// Handler is a runtime handler in containerd's configuration.
type Handler struct {
	Name string
	// PodAnnotations are those that reach containers.
	PodAnnotations []string
	// SystemdCgroup says that cgroups are made by systemd.
	SystemdCgroup bool
}

// probeContainerd asks the daemon and looks at its process.
func probeContainerd(ctx context.Context, address string) Containerd {
	c := Containerd{Address: address}
	d, ctx, err := daemon.Connect(ctx, address, "default")
	if err != nil {
		c.Err = err
		return c
	}
	defer d.Close()
	c.Version = d.Version
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	info, err := d.RuntimeInfo(ctx, dryrun.Runtime, nil)
	if c.ShimErr = err; err == nil {
		c.ShimVersion = info.Version.Version
	}
	server, err := d.IntrospectionService().Server(ctx)
	if err != nil || server.GetPid() == 0 {
		c.HandlersErr = errors.Join(errors.New("containerd does not tell its process"), err)
		return c
	}
	pid := strconv.FormatUint(server.GetPid(), 10)
	c.Env = environment(pid)
	c.Capabilities, c.CapabilitiesKnown = capabilities(pid)
	c.Handlers, c.HandlersErr = dumpHandlers(ctx, pid)
	return c
}

// environment reads that of a process; nil if it cannot.
func environment(pid string) map[string]string {
	raw, err := os.ReadFile(filepath.Join("/proc", pid, "environ"))
	if err != nil {
		return nil
	}
	env := map[string]string{}
	for entry := range strings.SplitSeq(string(raw), "\x00") {
		if name, value, ok := strings.Cut(entry, "="); ok {
			env[name] = value
		}
	}
	return env
}

// capabilities reads the effective ones of a process.
func capabilities(pid string) (uint64, bool) {
	raw, err := os.ReadFile(filepath.Join("/proc", pid, "status"))
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, "CapEff:"); ok {
			c, err := strconv.ParseUint(strings.TrimSpace(rest), 16, 64)
			return c, err == nil
		}
	}
	return 0, false
}

// dumpHandlers has containerd's own program print the configuration of the process.
func dumpHandlers(ctx context.Context, pid string) ([]Handler, error) {
	raw, err := os.ReadFile(filepath.Join("/proc", pid, "cmdline"))
	if err != nil {
		return nil, err
	}
	args := strings.Split(strings.TrimRight(string(raw), "\x00"), "\x00")
	var dump []string
	for i, a := range args {
		if (a == "--config" || a == "-c") && i+1 < len(args) {
			dump = []string{"--config", args[i+1]}
		}
		if file, ok := strings.CutPrefix(a, "--config="); ok {
			dump = []string{"--config", file}
		}
	}
	cmd := exec.CommandContext(ctx, filepath.Join("/proc", pid, "exe"), append(dump, "config", "dump")...)
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("have containerd dump its configuration: %w", err)
	}
	return parseHandlers(out)
}

// parseHandlers finds the handlers for this runtime in a configuration, of any version.
func parseHandlers(dump []byte) ([]Handler, error) {
	type runtime struct {
		Type           string   `toml:"runtime_type"`
		PodAnnotations []string `toml:"pod_annotations"`
		Options        struct {
			SystemdCgroup bool `toml:"SystemdCgroup"`
		} `toml:"options"`
	}
	var c struct {
		Plugins map[string]struct {
			Containerd struct {
				Runtimes map[string]runtime `toml:"runtimes"`
			} `toml:"containerd"`
		} `toml:"plugins"`
	}
	if err := toml.Unmarshal(dump, &c); err != nil {
		return nil, fmt.Errorf("read containerd's configuration: %w", err)
	}
	var found []Handler
	for _, p := range c.Plugins {
		for name, r := range p.Containerd.Runtimes {
			if r.Type == dryrun.Runtime {
				found = append(found, Handler{Name: name, PodAnnotations: r.PodAnnotations, SystemdCgroup: r.Options.SystemdCgroup})
			}
		}
	}
	slices.SortFunc(found, func(a, b Handler) int { return strings.Compare(a.Name, b.Name) })
	return found, nil
}

// The first version of containerd that speaks to shims as ours does.
const minMajor, minMinor = 2, 3

// capSysResource is the number of CAP_SYS_RESOURCE.
const capSysResource = 24

// containerd judges the daemon, and what it gives to its shims.
func (n Node) containerd() []Check {
	c := n.Containerd
	if c.Err != nil {
		return []Check{warning("containerd", "what follows is judged by this PATH and environment instead of containerd's", "%v", c.Err), n.shim()}
	}
	checks := []Check{ok("containerd", "%s at %s", c.Version, c.Address)}
	var major, minor int
	if _, err := fmt.Sscanf(strings.TrimPrefix(c.Version, "v"), "%d.%d", &major, &minor); err == nil && (major < minMajor || major == minMajor && minor < minMinor) {
		checks = []Check{problem("containerd", fmt.Sprintf("update containerd to %d.%d or newer", minMajor, minMinor), "%s at %s is too old", c.Version, c.Address)}
	}
	checks = append(checks, n.shimOfContainerd(), n.criuOfContainerd())
	if c.Env != nil && n.ConfigFile != "" {
		theirs := c.Env[config.EnvFile]
		if theirs == "" {
			theirs = config.DefaultFile
		}
		if theirs != n.ConfigFile {
			checks = append(checks, problem("configuration", fmt.Sprintf("set %s to the same for both", config.EnvFile), "containerd's shims read %s, this reads %s: they see another store", theirs, n.ConfigFile))
		}
	}
	if c.CapabilitiesKnown && c.Capabilities&(1<<capSysResource) == 0 {
		checks = append(checks, warning("capabilities", "run containerd with CAP_SYS_RESOURCE", "containerd has no CAP_SYS_RESOURCE: programs of other users than root cannot be captured"))
	}
	return append(checks, n.handlers()...)
}

// shimOfContainerd is about the program that containerd starts for a container.
func (n Node) shimOfContainerd() Check {
	c := n.Containerd
	switch {
	case c.ShimErr != nil:
		return problem("shim", "install "+shimProgram+" into a directory of containerd's PATH ("+c.Env["PATH"]+")", "containerd cannot start %s: %v", dryrun.Runtime, c.ShimErr)
	case c.ShimVersion != n.Version:
		return warning("shim", "install both from one build; shims that run already stay as they are", "containerd finds version %s, and this is %s", c.ShimVersion, n.Version)
	}
	return ok("shim", "%s, as this program", c.ShimVersion)
}

// criuOfContainerd compares the CRIU of containerd's PATH with ours, which is judged.
func (n Node) criuOfContainerd() Check {
	path, known := n.Containerd.Env["PATH"]
	if !known {
		return warning("criu", "run this as root of the host", "containerd's PATH cannot be read: it must lead to the same criu as this one")
	}
	theirs := find(path, "criu")
	switch {
	case theirs == "":
		return problem("criu", fmt.Sprintf("install criu >= %s into one of its directories", checkpoint.FormatCRIU(criu.MinVersion)), "containerd's PATH %s has none", path)
	case n.CRIU != "" && !same(theirs, n.CRIU):
		return warning("criu", "run this with containerd's PATH, to have its criu judged", "containerd's shims use %s, and this judges %s", theirs, n.CRIU)
	}
	return ok("criu", "%s, in containerd's PATH", theirs)
}

// find looks a program up in a PATH.
func find(path, program string) string {
	for _, dir := range filepath.SplitList(path) {
		file := filepath.Join(dir, program)
		if st, err := os.Stat(file); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return file
		}
	}
	return ""
}

// same says that two paths lead to one file.
func same(a, b string) bool {
	x, err := os.Stat(a)
	y, yerr := os.Stat(b)
	return err == nil && yerr == nil && os.SameFile(x, y)
}

// handlers is about Kubernetes' way to the runtime.
func (n Node) handlers() []Check {
	c := n.Containerd
	switch {
	case c.HandlersErr != nil:
		return []Check{warning("handlers", "look into it yourself, if Kubernetes is to use the runtime: docs/operations.md", "not known: %v", c.HandlersErr)}
	case len(c.Handlers) == 0:
		return []Check{ok("handlers", "no runtime handler for Kubernetes is configured; ctr and nerdctl need none")}
	}
	var checks []Check
	for _, h := range c.Handlers {
		switch {
		case !slices.Contains(h.PodAnnotations, spec.Prefix+"*"):
			checks = append(checks, warning("handlers", fmt.Sprintf("add pod_annotations = [%q] to it", spec.Prefix+"*"), "handler %s passes no annotations of pods on: settings in them are ignored", h.Name))
		case h.SystemdCgroup && n.Facts.Cgroup == "v2":
			checks = append(checks, warning("handlers", "expect boots of such containers, or use the cgroupfs driver", "handler %s uses the systemd cgroup driver, with which containers that have a cgroup namespace of their own are not restored", h.Name))
		default:
			checks = append(checks, ok("handlers", "%s", h.Name))
		}
	}
	return checks
}

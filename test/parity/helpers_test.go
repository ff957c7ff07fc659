package parity

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/test/harness"
)

func itoa(n int) string { return strconv.Itoa(n) }

// link is the identity of a process's namespace.
func link(s *side, pid int, ns string) string {
	s.Helper()
	l, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, ns))
	s.must(err)
	return l
}

// statusOf is what containerd says of a task.
func statusOf(c *container) string {
	c.Helper()
	st, err := c.task.Status(c.context())
	c.must(err)
	return string(st.Status)
}

// bind mounts a directory of the host.
func bind(source, target string) []oci.SpecOpts {
	return []oci.SpecOpts{oci.WithMounts([]specs.Mount{{Destination: target, Type: "bind", Source: source, Options: []string{"rbind"}}})}
}

func consoleSize(s *oci.Spec) { s.Process.ConsoleSize = &specs.Box{Width: 77, Height: 33} }

// seeFile notes what a file holds.
func (s *side) seeFile(what, path string) {
	s.Helper()
	data, err := os.ReadFile(path)
	s.must(err)
	s.see(what, "%s", data)
}

// at names where both output streams go.
func at(uri string) cio.Creator {
	u, err := url.Parse(uri)
	if err != nil {
		panic(err)
	}
	return cio.LogURI(u)
}

// cgroupFile is what a file of the container's cgroup holds, in whichever hierarchy it is.
func (c *container) cgroupFile(name string) string {
	c.Helper()
	for _, pattern := range []string{"/sys/fs/cgroup/*", "/sys/fs/cgroup"} {
		found, err := filepath.Glob(filepath.Join(pattern, node.Namespace, c.ID(), name))
		c.must(err)
		if len(found) > 0 {
			data, err := os.ReadFile(found[0])
			c.must(err)
			return strings.TrimSpace(string(data))
		}
	}
	return "none"
}

// withAll sends a signal to all processes.
func withAll(_ context.Context, k *client.KillInfo) error {
	k.All = true
	return nil
}

// processes are those in the container's cgroup.
func (c *container) processes() []harness.Process {
	c.Helper()
	all, err := harness.Processes()
	c.must(err)
	return slices.DeleteFunc(all, func(p harness.Process) bool {
		return !slices.ContainsFunc(p.Cgroups, func(line string) bool { return strings.HasSuffix(line, ":/"+node.Namespace+"/"+c.ID()) })
	})
}

// commands are the commands of the container's processes.
func (c *container) commands() string {
	c.Helper()
	var found []string
	for _, p := range c.processes() {
		command := strings.Join(p.Args, " ")
		if p.State == "Z" {
			command = "zombie " + p.Command
		}
		found = append(found, command)
	}
	slices.Sort(found)
	return strings.Join(found, "\n")
}

// parentOf says whose child the container's process with this command is.
func (c *container) parentOf(command string) string {
	c.Helper()
	init, err := harness.ReadProcess(int(c.task.Pid()))
	c.must(err)
	for _, p := range c.processes() {
		if strings.Join(p.Args, " ") != command {
			continue
		}
		switch p.PPID {
		case init.PID:
			return "init"
		case init.PPID:
			return "the shim"
		case 1:
			return "process 1"
		}
		return "another"
	}
	return "none"
}

// killCommand kills the container's processes with this command.
func (c *container) killCommand(command string) {
	c.Helper()
	for _, p := range c.processes() {
		if strings.Join(p.Args, " ") == command {
			c.must(unix.Kill(p.PID, unix.SIGKILL))
		}
	}
}

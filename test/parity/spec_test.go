package parity

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/contrib/apparmor"
	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// edit changes a spec in a way that oci has no function for.
func edit(f func(s *oci.Spec)) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		f(s)
		return nil
	}
}

// without removes a namespace, so that the container has the host's.
func without(ns specs.LinuxNamespaceType) oci.SpecOpts { return oci.WithHostNamespace(ns) }

// specs are ways to describe a container, each of which leaves its trace in
// what a program sees.
var specOpts = map[string][]oci.SpecOpts{
	"plain":        nil,
	"privileged":   {oci.WithPrivileged},
	"unprivileged": {oci.WithUserID(1000), oci.WithAdditionalGIDs("daemon"), oci.WithCapabilities(nil)},
	"ambient":      {oci.WithUserID(1000), oci.WithAmbientCapabilities([]string{"CAP_NET_RAW"})},
	"seccomp":      {seccomp.WithDefaultProfile()},
	"new privileges": {oci.WithNewPrivileges, edit(func(s *oci.Spec) {
		s.Process.NoNewPrivileges = false
	})},
	"no new privileges": {oci.WithNoNewPrivileges},
	"limits": {edit(func(s *oci.Spec) {
		s.Process.Rlimits = []specs.POSIXRlimit{
			{Type: "RLIMIT_NOFILE", Soft: 500, Hard: 600}, {Type: "RLIMIT_CORE"}, {Type: "RLIMIT_STACK", Soft: 1 << 20, Hard: 2 << 20},
		}
	})},
	"sysctls": {edit(func(s *oci.Spec) {
		s.Linux.Sysctl = map[string]string{"kernel.shmmax": "12345678", "net.ipv4.ip_unprivileged_port_start": "77", "net/ipv4/ip_forward": "1"}
	})},
	"devices": {edit(func(s *oci.Spec) {
		mode, uid := os.FileMode(0o640), uint32(12)
		s.Linux.Devices = append(s.Linux.Devices,
			specs.LinuxDevice{Path: "/dev/nothing", Type: "c", Major: 1, Minor: 3, FileMode: &mode, UID: &uid},
			specs.LinuxDevice{Path: "/dev/deep/down/zero", Type: "c", Major: 1, Minor: 5},
			specs.LinuxDevice{Path: "/dev/pipe", Type: "p"},
		)
		s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, specs.LinuxDeviceCgroup{Allow: true, Access: "rwm"})
	})},
	"read-only root": {oci.WithRootFSReadonly()},
	"masked": {edit(func(s *oci.Spec) {
		s.Linux.MaskedPaths = []string{"/proc/interrupts", "/sys/firmware", "/does/not/exist", "/etc"}
		s.Linux.ReadonlyPaths = []string{"/tmp", "/proc/sysrq-trigger", "/does/not/exist"}
	})},
	"nothing masked": {oci.WithMaskedPaths(nil), oci.WithReadonlyPaths(nil)},
	"mounts": {edit(func(s *oci.Spec) {
		s.Mounts = append(s.Mounts,
			specs.Mount{Destination: "/t", Type: "tmpfs", Source: "tmpfs", Options: []string{"size=1m", "noexec", "mode=0711"}},
			specs.Mount{Destination: "/b", Type: "bind", Source: "/usr", Options: []string{"rbind", "ro", "nosuid", "rprivate"}},
			specs.Mount{Destination: "/r", Type: "bind", Source: "/usr/bin", Options: []string{"bind", "rro", "rslave"}},
			specs.Mount{Destination: "/f", Type: "bind", Source: "/etc/hostname", Options: []string{"bind", "ro"}},
			specs.Mount{Destination: "/copied", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup"}},
		)
		s.Linux.RootfsPropagation = "slave"
	})},
	"names":       {oci.WithHostname("some-host"), oci.WithDomainname("some.domain"), oci.WithProcessCwd("/some/where/else")},
	"environment": {oci.WithEnv([]string{"A=b", "A=c", "EMPTY=", "HOME=/nowhere"})},
	"oom score":   {edit(func(s *oci.Spec) { n := 500; s.Process.OOMScoreAdj = &n })},
	"umask":       {edit(func(s *oci.Spec) { m := uint32(0o27); s.Process.User.Umask = &m })},
	"scheduler":   {edit(func(s *oci.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Nice: 5} })},
	"I/O priority": {edit(func(s *oci.Spec) {
		s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 6}
	})},
	"CPUs":            {oci.WithCPUs("0"), oci.WithCPUsMems("0")},
	"personality":     {edit(func(s *oci.Spec) { s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32} })},
	"CPU affinity":    {edit(func(s *oci.Spec) { s.Process.ExecCPUAffinity = &specs.CPUAffinity{Initial: "0", Final: "1"} })},
	"host's network":  {without(specs.NetworkNamespace), oci.WithHostHostsFile, oci.WithHostResolvconf},
	"host's pids":     {without(specs.PIDNamespace)},
	"host's IPC":      {without(specs.IPCNamespace)},
	"host's names":    {without(specs.UTSNamespace), edit(func(s *oci.Spec) { s.Hostname = "" })},
	"host's cgroups":  {without(specs.CgroupNamespace)},
	"own cgroups":     {oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.CgroupNamespace}), cgroupMount},
	"seen cgroups":    {cgroupMount},
	"time namespace":  {oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.TimeNamespace}), edit(timeOffsets)},
	"CDI":             {edit(asCDI)},
	"idmapped mount":  {edit(idmapped)},
	"no capabilities": {oci.WithCapabilities([]string{})},
}

var cgroupMount = oci.WithMounts([]specs.Mount{{
	Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"},
}})

func timeOffsets(s *oci.Spec) {
	s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {Secs: 172800}, "boottime": {Secs: 604800}}
}

// asCDI does to a spec what containerd does for a device of the Container Device
// Interface: device nodes with their rules, mounts, environment and groups.
func asCDI(s *oci.Spec) {
	s.Process.Env = append(s.Process.Env, "CDI_DEVICE=one")
	mode := os.FileMode(0o666)
	major, minor := int64(1), int64(7)
	s.Linux.Devices = append(s.Linux.Devices, specs.LinuxDevice{Path: "/dev/vendor/card0", Type: "c", Major: major, Minor: minor, FileMode: &mode})
	s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: &major, Minor: &minor, Access: "rw"})
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/usr/lib/vendor", Type: "bind", Source: "/usr/lib", Options: []string{"ro", "nosuid", "nodev", "rbind", "rprivate"}})
	s.Process.User.AdditionalGids = append(s.Process.User.AdditionalGids, 44)
	// Vendors link what is in the container already: their hook finds its root in
	// the state that it is told.
	link := `root=$(sed 's/.*"bundle":"\([^"]*\)".*/\1/')/rootfs; ln -s vendor/card0 "$root/dev/linked"`
	s.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", link}}}}
}

// idmapped adds a mount whose owners are mapped: what belongs to 0 outside
// belongs to 1234 inside.
func idmapped(s *oci.Spec) {
	m := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1234, Size: 1000}}
	s.Mounts = append(s.Mounts, specs.Mount{
		Destination: "/mapped", Type: "bind", Source: "/usr", Options: []string{"rbind", "ro"}, UIDMappings: m, GIDMappings: m,
	})
}

// TestView compares what programs see in their containers.
func TestView(t *testing.T) {
	for name, opts := range specOpts {
		compare(t, name, func(s *side) {
			s.view(want{opts: opts})
		})
	}
	compare(t, "AppArmor", func(s *side) {
		if _, err := os.Stat("/sys/kernel/security/apparmor"); err != nil {
			// Without AppArmor a profile is an error, and it must be the same one.
			c := s.newContainer(want{opts: []oci.SpecOpts{apparmor.WithProfile("some-profile")}, args: []string{"true"}})
			err := c.create(want{})
			if err == nil {
				err = c.task.Start(s.context())
			}
			s.seeError("profile without AppArmor", err, "apparmor")
			return
		}
		s.view(want{opts: []oci.SpecOpts{apparmor.WithDefaultProfile("snap-parity")}})
	})
	compare(t, "idmapped owners", func(s *side) {
		c := s.started(shell("stat -c %u:%g /mapped; sleep 1000", edit(idmapped)))
		c.waitFor(c.out, ":")
		s.see("owner", "%s", c.out.String())
		c.explained("the owners of mount /mapped are mapped")
	})
	compare(t, "namespaces by path", func(s *side) {
		a := s.started(shell("sleep 1000"))
		var opts []oci.SpecOpts
		for kind, file := range map[specs.LinuxNamespaceType]string{
			specs.NetworkNamespace: "net", specs.IPCNamespace: "ipc", specs.UTSNamespace: "uts", specs.PIDNamespace: "pid",
		} {
			path := filepath.Join("/proc", itoa(int(a.task.Pid())), "ns", file)
			opts = append(opts, oci.WithLinuxNamespace(specs.LinuxNamespace{Type: kind, Path: path}))
		}
		opts = append(opts, edit(func(s *oci.Spec) { s.Hostname = "" }))
		b := s.started(shell("sleep 1000 & sleep 1000", opts...))
		for _, ns := range []string{"net", "ipc", "uts", "pid", "mnt", "cgroup"} {
			x, y := link(s, int(a.task.Pid()), ns), link(s, int(b.task.Pid()), ns)
			s.see(ns+" is shared", "%t", x == y)
		}
		out, _ := b.run("sh", "-c", "ps | grep -c '[s]leep 1000'")
		s.see("processes that are seen", "%s", out)
		s.must(b.task.Kill(s.context(), unix.SIGKILL))
		s.see("exit of the second", "%d", b.wait())
		out, _ = a.run("sh", "-c", "ps | grep -c '[s]leep 1000'")
		s.see("processes that are left", "%s", out)
		s.see("the first is", "%s", statusOf(a))
	})
}

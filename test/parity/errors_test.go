package parity

import (
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// bad are specs and programs that cannot be started, with the words by which
// clients know what was wrong.
var bad = map[string]struct {
	args  []string
	opts  []oci.SpecOpts
	words []string
}{
	"no such program":         {args: []string{"/nonexistent"}, words: []string{`exec: "/nonexistent": stat /nonexistent: no such file or directory`}},
	"no such program in PATH": {args: []string{"nonexistent"}, words: []string{`exec: "nonexistent": executable file not found in $PATH`}},
	"a directory":             {args: []string{"/bin"}, words: []string{`exec: "/bin": is a directory`}},
	"no permission":           {args: []string{"/etc/passwd"}, words: []string{`exec: "/etc/passwd": permission denied`}},
	"no such directory, no right to make it": {
		args: []string{"true"}, opts: []oci.SpecOpts{oci.WithProcessCwd("/etc/passwd/x")}, words: []string{"/etc/passwd/x"},
	},
	"unknown capability": {args: []string{"sh", "-c", "grep Cap /proc/self/status"}, opts: []oci.SpecOpts{oci.WithCapabilities([]string{"CAP_NONSENSE"})}},
	"unknown rlimit": {args: []string{"true"}, words: []string{"RLIMIT_NONSENSE"}, opts: []oci.SpecOpts{edit(func(s *oci.Spec) {
		s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NONSENSE", Soft: 1, Hard: 1}}
	})}},
	"unknown namespace": {args: []string{"true"}, words: []string{"nonsense"}, opts: []oci.SpecOpts{edit(func(s *oci.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "nonsense"})
	})}},
	"missing namespace": {args: []string{"true"}, words: []string{"/proc/1/ns/none"}, opts: []oci.SpecOpts{
		oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: "/proc/1/ns/none"}),
	}},
	"missing mount source": {args: []string{"true"}, opts: bind("/does/not/exist", "/x"), words: []string{"/does/not/exist"}},
	"unknown sysctl": {args: []string{"true"}, words: []string{"kernel.nonsense"}, opts: []oci.SpecOpts{edit(func(s *oci.Spec) {
		s.Linux.Sysctl = map[string]string{"kernel.nonsense": "1"}
	})}},
	"sysctl of the host": {args: []string{"true"}, words: []string{"net.ipv4.ip_forward"}, opts: []oci.SpecOpts{
		without(specs.NetworkNamespace), edit(func(s *oci.Spec) { s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"} }),
	}},
	"missing device": {args: []string{"true"}, words: []string{"/dev/x"}, opts: []oci.SpecOpts{edit(func(s *oci.Spec) {
		s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/x", Type: "z"}}
	})}},
	"unknown seccomp action": {args: []string{"true"}, words: []string{"SCMP_ACT_NONSENSE"}, opts: []oci.SpecOpts{edit(func(s *oci.Spec) {
		s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: "SCMP_ACT_NONSENSE"}
	})}},
	"program that seccomp kills": {args: []string{"true"}, opts: []oci.SpecOpts{edit(func(s *oci.Spec) {
		s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchAARCH64}, Syscalls: []specs.LinuxSyscall{
			{Names: []string{"getuid"}, Action: specs.ActErrno}, {Names: []string{"exit_group"}, Action: specs.ActKill},
		}}
	})}},
	"limit that the kernel refuses": {args: []string{"true"}, words: []string{"cpu"}, opts: []oci.SpecOpts{edit(func(s *oci.Spec) {
		p, q := uint64(1), int64(1)
		s.Linux.Resources.CPU = &specs.LinuxCPU{Period: &p, Quota: &q}
	})}},
	"cgroup outside":         {args: []string{"cat", "/proc/self/cgroup"}, opts: []oci.SpecOpts{oci.WithCgroup("/../../x")}},
	"user that has no name":  {args: []string{"id"}, opts: []oci.SpecOpts{oci.WithUserID(54321)}},
	"failing hook":           {args: []string{"true"}, words: []string{"hook"}, opts: []oci.SpecOpts{edit(func(s *oci.Spec) { s.Hooks = &specs.Hooks{CreateRuntime: falseHook} })}},
	"failing hook inside":    {args: []string{"true"}, words: []string{"hook"}, opts: []oci.SpecOpts{edit(func(s *oci.Spec) { s.Hooks = &specs.Hooks{CreateContainer: falseHook} })}},
	"failing hook at start":  {args: []string{"true"}, opts: []oci.SpecOpts{edit(func(s *oci.Spec) { s.Hooks = &specs.Hooks{StartContainer: falseHook} })}},
	"failing hook afterward": {args: []string{"true"}, opts: []oci.SpecOpts{edit(func(s *oci.Spec) { s.Hooks = &specs.Hooks{Poststart: falseHook} })}},
	"hook that never ends": {args: []string{"true"}, words: []string{"hook"}, opts: []oci.SpecOpts{edit(func(s *oci.Spec) {
		second := 1
		s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sleep", Args: []string{"sleep", "1000"}, Timeout: &second}}}
	})}},
	"no root file system": {args: []string{"true"}, opts: []oci.SpecOpts{edit(func(s *oci.Spec) { s.Root.Path = "/does/not/exist" })}},
	"no process":          {opts: []oci.SpecOpts{edit(func(s *oci.Spec) { s.Process = nil })}},
	"no arguments":        {opts: []oci.SpecOpts{edit(func(s *oci.Spec) { s.Process.Args = nil })}},
	"relative cwd":        {args: []string{"true"}, opts: []oci.SpecOpts{edit(func(s *oci.Spec) { s.Process.Cwd = "relative" })}},
}

var falseHook = []specs.Hook{{Path: "/bin/false"}}

// TestBadSpecs starts what cannot be started: it fails at the same step, in the
// same class and with the same words, and what follows is the same.
func TestBadSpecs(t *testing.T) {
	for name, b := range bad {
		compare(t, name, func(s *side) {
			c := s.newContainer(want{args: b.args, opts: b.opts})
			err := c.create(want{})
			s.seeError("create", err, b.words...)
			if err != nil {
				// The name is free for another attempt, which fails in the same way.
				s.seeError("create again", c.create(want{}), b.words...)
				return
			}
			err = c.task.Start(s.context())
			s.seeError("start", err, b.words...)
			s.see("exit", "%d", c.wait())
			c.task.IO().Wait()
			s.see("output", "%s", c.normal(c.out.String()))
			s.see("errors", "%s", c.normal(c.err.String()))
			st, err := c.task.Delete(s.context())
			s.seeError("delete", err)
			if err == nil {
				s.see("the deletion's exit", "%d", st.ExitCode())
			}
		})
	}
}

// TestBadExecs does so with processes in a container that runs.
func TestBadExecs(t *testing.T) {
	compare(t, "bad execs", func(s *side) {
		c := s.started(shell("sleep 1000"))
		for _, b := range []struct {
			name  string
			words []string
			edit  func(p *specs.Process)
		}{
			{"no such program", []string{`exec: "/nonexistent": stat /nonexistent: no such file or directory`}, func(p *specs.Process) { p.Args = []string{"/nonexistent"} }},
			{"not in PATH", []string{`exec: "nonexistent": executable file not found in $PATH`}, func(p *specs.Process) { p.Args = []string{"nonexistent"} }},
			{"no permission", []string{`exec: "/etc/passwd": permission denied`}, func(p *specs.Process) { p.Args = []string{"/etc/passwd"} }},
			{"missing cwd", []string{"/no/where"}, func(p *specs.Process) { p.Cwd = "/no/where" }},
			{"no arguments", nil, func(p *specs.Process) { p.Args = nil }},
			{"no cwd", nil, func(p *specs.Process) { p.Cwd = "" }},
			{"unknown rlimit", []string{"RLIMIT_NONSENSE"}, func(p *specs.Process) { p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NONSENSE"}} }},
		} {
			p := c.process("true")
			b.edit(p)
			e, err := c.task.Exec(s.context(), "bad"+itoa(int(serial.Add(1))), p, cio.NullIO)
			if err != nil {
				// Whether it is refused when it is announced or when it is started is
				// the same to a user.
				s.seeError(b.name, err, b.words...)
				s.see(b.name+": delete", "ok")
				continue
			}
			s.seeError(b.name, e.Start(s.context()), b.words...)
			_, err = e.Delete(s.context())
			s.seeError(b.name+": delete", err)
		}
		s.see("the task is", "%s", statusOf(c))
		out, code := c.run("echo", "alive")
		s.see("a good exec", "%d %s", code, out)
		s.must(c.task.Kill(s.context(), unix.SIGKILL))
		s.see("exit", "%d", c.wait())
	})
}

// TestUpdates compares what updates do to the cgroup, and what they refuse.
func TestUpdates(t *testing.T) {
	number := func(n int64) *int64 { return &n }
	count := func(n uint64) *uint64 { return &n }
	compare(t, "updates", func(s *side) {
		c := s.started(shell("sleep 1000", oci.WithMemoryLimit(200<<20)))
		for _, u := range []struct {
			name string
			r    specs.LinuxResources
		}{
			{"memory", specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: number(100 << 20)}}},
			{"memory and reservation", specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: number(120 << 20), Reservation: number(50 << 20)}}},
			{"pids", specs.LinuxResources{Pids: &specs.LinuxPids{Limit: number(77)}}},
			{"CPU", specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: count(512), Quota: number(50000), Period: count(100000), Cpus: "0"}}},
			{"CPU without quota", specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: number(-1)}}},
			{"nothing", specs.LinuxResources{}},
			{"too little memory", specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: number(4096)}}},
			{"CPUs that are not there", specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "900"}}},
			{"memory without limit", specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: number(-1)}}},
		} {
			s.seeError(u.name, c.task.Update(s.context(), client.WithResources(&u.r)))
			s.see("cgroup after "+u.name, "%s", c.limits())
		}
		// Processes can still be started, with the container's devices.
		_, code := c.run("sh", "-c", "echo >/dev/null")
		s.see("exec", "%d", code)
	})
}

// limits reads the container's limits out of its cgroups.
func (c *container) limits() string {
	c.Helper()
	var b strings.Builder
	for _, f := range []string{
		"memory.limit_in_bytes", "memory.soft_limit_in_bytes", "memory.memsw.limit_in_bytes", "pids.max", "cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us", "cpuset.cpus", "devices.list",
		"memory.max", "memory.low", "cpu.max", "cpu.weight",
	} {
		fmt.Fprintf(&b, "%s %q\n", f, c.cgroupFile(f))
	}
	return b.String()
}

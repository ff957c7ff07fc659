package spec

import (
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Obstacles returns why a container of this shape can never be restored; it is
// empty if nothing speaks against it. Each obstacle is a clause that goes on
// where "boot: " ends. The first is the weightiest.
//
// There are two kinds: shapes that CRIU or libcontainer cannot recreate, and
// settings of which a checkpoint holds nothing and which a restore does not
// apply, so that the restored task would silently lack them.
func Obstacles(s *specs.Spec) []string {
	var found []string
	if s.Root == nil || s.Root.Path == "" {
		found = append(found, "it has no root file system")
	}
	l := s.Linux
	if l == nil {
		l = &specs.Linux{}
	}
	found = append(found, namespaceObstacles(l)...)
	for _, m := range s.Mounts {
		if isIDMapped(m) {
			found = append(found, fmt.Sprintf("the owners of mount %s are mapped", readable(m.Destination)))
		}
	}
	if s.Process != nil {
		found = append(found, processObstacles(s.Process)...)
	}
	return append(found, linuxObstacles(l)...)
}

func namespaceObstacles(l *specs.Linux) []string {
	path := map[specs.LinuxNamespaceType]string{}
	for _, n := range l.Namespaces {
		path[n.Type] = n.Path
	}
	has := func(t specs.LinuxNamespaceType) bool { _, ok := path[t]; return ok }
	joins := func(t specs.LinuxNamespaceType) bool { return path[t] != "" }

	var found []string
	if has(specs.UserNamespace) || len(l.UIDMappings) > 0 || len(l.GIDMappings) > 0 {
		found = append(found, "it has a user namespace")
	}
	switch {
	case !has(specs.PIDNamespace):
		found = append(found, "it shares the host's pid namespace; pids are restored exactly and may be taken there")
	case joins(specs.PIDNamespace):
		found = append(found, "it joins another's pid namespace; pids are restored exactly and may be taken there")
	}
	switch {
	case !has(specs.MountNamespace):
		found = append(found, "it shares the host's mount namespace")
	case joins(specs.MountNamespace):
		found = append(found, "it joins another's mount namespace")
	}
	// libcontainer passes CRIU no descriptor of these two, so that the restored
	// task would get one of its own.
	if joins(specs.CgroupNamespace) {
		found = append(found, "it joins another's cgroup namespace")
	}
	if joins(specs.TimeNamespace) {
		found = append(found, "it joins another's time namespace")
	}
	return found
}

func processObstacles(p *specs.Process) []string {
	var found []string
	// CRIU saves policy, nice value and priority, and nothing else.
	if c := p.Scheduler; c != nil && (c.Policy == specs.SchedDeadline || len(c.Flags) > 0) {
		found = append(found, "its scheduling is by deadline or has flags, which a restore would lose")
	}
	if p.IOPriority != nil {
		found = append(found, "it has an I/O priority, which a restore would lose")
	}
	return found
}

func linuxObstacles(l *specs.Linux) []string {
	var found []string
	if s := l.Seccomp; s != nil {
		notifies := s.DefaultAction == specs.ActNotify || slices.ContainsFunc(s.Syscalls, func(c specs.LinuxSyscall) bool {
			return c.Action == specs.ActNotify
		})
		if notifies {
			found = append(found, "its seccomp profile notifies a listener, to which a restore would not connect it")
		}
	}
	if l.MemoryPolicy != nil {
		found = append(found, "it has a NUMA memory policy, which a restore would lose")
	}
	if l.IntelRdt != nil {
		found = append(found, "it has an Intel RDT class, which a restore would not join")
	}
	if len(l.NetDevices) > 0 {
		found = append(found, "it takes network devices from the host, which a restore would not move")
	}
	return found
}

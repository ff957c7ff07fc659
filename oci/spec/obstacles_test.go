package spec

import (
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// restorable returns a spec without obstacles.
func restorable() *specs.Spec {
	return &specs.Spec{
		Process: &specs.Process{Scheduler: &specs.Scheduler{Policy: specs.SchedFIFO, Priority: 1}},
		Root:    &specs.Root{Path: "/rootfs"},
		Mounts:  []specs.Mount{{Destination: "/data", Type: "bind", Options: []string{"rbind"}}},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{{Type: "pid"}, {Type: "mount"}, {Type: "cgroup"}, {Type: "time"}, {Type: "network", Path: "/n"}, {Type: "ipc", Path: "/i"}},
			Seccomp:    &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Action: specs.ActAllow}}},
		},
	}
}

func TestObstacles(t *testing.T) {
	ids := []specs.LinuxIDMapping{{Size: 1}}
	for name, test := range map[string]struct {
		change func(*specs.Spec)
		want   string
	}{
		"none":                 {func(*specs.Spec) {}, ""},
		"no root":              {func(s *specs.Spec) { s.Root = nil }, "no root file system"},
		"no path of the root":  {func(s *specs.Spec) { s.Root.Path = "" }, "no root file system"},
		"user namespace":       {func(s *specs.Spec) { s.Linux.Namespaces[3] = specs.LinuxNamespace{Type: "user"} }, "it has a user namespace"},
		"uid mapping":          {func(s *specs.Spec) { s.Linux.UIDMappings = ids }, "it has a user namespace"},
		"gid mapping":          {func(s *specs.Spec) { s.Linux.GIDMappings = ids }, "it has a user namespace"},
		"mapped mount, uid":    {func(s *specs.Spec) { s.Mounts[0].UIDMappings = ids }, "mount /data are mapped"},
		"mapped mount, gid":    {func(s *specs.Spec) { s.Mounts[0].GIDMappings = ids }, "mount /data are mapped"},
		"mapped mount, idmap":  {func(s *specs.Spec) { s.Mounts[0].Options[0] = "idmap" }, "mount /data are mapped"},
		"mapped mount, ridmap": {func(s *specs.Spec) { s.Mounts[0].Options[0] = "ridmap" }, "mount /data are mapped"},
		"host pid":             {func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[1:] }, "the host's pid namespace; pids are restored exactly"},
		"joined pid":           {func(s *specs.Spec) { s.Linux.Namespaces[0].Path = "/p" }, "another's pid namespace; pids are restored exactly"},
		"host mount":           {func(s *specs.Spec) { s.Linux.Namespaces[1].Type = "uts" }, "the host's mount namespace"},
		"joined mount":         {func(s *specs.Spec) { s.Linux.Namespaces[1].Path = "/m" }, "another's mount namespace"},
		"joined cgroup":        {func(s *specs.Spec) { s.Linux.Namespaces[2].Path = "/c" }, "cgroup namespace"},
		"joined time":          {func(s *specs.Spec) { s.Linux.Namespaces[3].Path = "/t" }, "time namespace"},
		"seccomp listener":     {func(s *specs.Spec) { s.Linux.Seccomp.Syscalls[0].Action = specs.ActNotify }, "seccomp"},
		"seccomp default":      {func(s *specs.Spec) { s.Linux.Seccomp.DefaultAction = specs.ActNotify }, "seccomp"},
		"deadline":             {func(s *specs.Spec) { s.Process.Scheduler.Policy = specs.SchedDeadline }, "scheduling"},
		"scheduling flags":     {func(s *specs.Spec) { s.Process.Scheduler.Flags = []specs.LinuxSchedulerFlag{"x"} }, "scheduling"},
		"I/O priority":         {func(s *specs.Spec) { s.Process.IOPriority = &specs.LinuxIOPriority{} }, "I/O priority"},
		"memory policy":        {func(s *specs.Spec) { s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{} }, "memory policy"},
		"RDT":                  {func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{} }, "RDT"},
		"network devices":      {func(s *specs.Spec) { s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"eth1": {}} }, "network devices"},
	} {
		t.Run(name, func(t *testing.T) {
			s := restorable()
			test.change(s)
			got := Obstacles(s)
			if test.want == "" {
				if len(got) != 0 {
					t.Errorf("obstacles are %q, want none", got)
				}
				return
			}
			if len(got) != 1 || !strings.Contains(got[0], test.want) {
				t.Errorf("obstacles are %q, want one with %q", got, test.want)
			}
		})
	}
}

func TestObstaclesOfAnEmptySpec(t *testing.T) {
	got := Obstacles(&specs.Spec{})
	if len(got) == 0 || !strings.Contains(got[0], "root file system") {
		t.Errorf("obstacles are %q, want the root file system first", got)
	}
}

func TestDescribe(t *testing.T) {
	for field, want := range map[string]string{
		"image":                 "the image differs",
		"args":                  "args differ",
		"env.FOO":               "env FOO differs",
		"env.":                  `env "" differs`,
		"env.A\nB":              `env "A\nB" differs`,
		"mount./data":           "mount /data differs",
		"mount./my data":        `mount "/my data" differs`,
		"capabilities.bounding": "bounding capabilities differ",
		"rlimit.RLIMIT_NOFILE":  "rlimit RLIMIT_NOFILE differs",
		"namespace.network":     "the network namespace differs",
		"hooks.createRuntime":   "the number of createRuntime hooks differs",
		"sysctl.net.core.a":     "sysctl net.core.a differs",
		"device./dev/fuse":      "device /dev/fuse differs",
		"timeOffset.boottime":   "the offset of the boottime clock differs",
		"of the future":         `"of the future" differs`,
		"future":                "future differs",
	} {
		if got := Describe(field); got != want {
			t.Errorf("Describe(%q) = %q, want %q", field, got, want)
		}
	}
}

// TestDescribeKnowsEveryField: a field without words of its own is a forgotten one.
func TestDescribeKnowsEveryField(t *testing.T) {
	s := full()
	s.Process.ApparmorProfile, s.Process.SelinuxLabel, s.Linux.MountLabel, s.Linux.RootfsPropagation = "a", "s", "m", "p"
	for field := range Fingerprint(s, "image") {
		if got := Describe(field); got == readable(field)+" differs" && field != fieldArgs {
			t.Errorf("no words for %q", field)
		}
	}
}

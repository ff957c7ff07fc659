package spec

import (
	"os"
	"reflect"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// in marks a field that is part of the fingerprint; any other text is the reason
// why one is not.
const in = ""

const (
	foreign  = "of another operating system"
	own      = "the new container's own, applied to a clone"
	obstacle = "an obstacle: a restore would lose it"
	inside   = "its fields are decided about one by one"
)

// decided says of every field of the spec that concerns Linux whether it is part
// of the fingerprint. A new field of the runtime specification must be entered
// here, with a reason, before the tests pass again.
var decided = []struct {
	// of reaches into a full spec.
	of     func(*specs.Spec) any
	fields map[string]string
}{
	{func(s *specs.Spec) any { return s }, map[string]string{
		"Version":     "says how to read the spec",
		"Process":     inside,
		"Root":        inside,
		"Hostname":    own,
		"Domainname":  own,
		"Mounts":      in,
		"Hooks":       inside,
		"Annotations": own,
		"Linux":       inside,
		"Solaris":     foreign, "Windows": foreign, "VM": foreign, "ZOS": foreign, "FreeBSD": foreign,
	}},
	{func(s *specs.Spec) any { return s.Process }, map[string]string{
		"Terminal":        in,
		"ConsoleSize":     own,
		"User":            inside,
		"Args":            in,
		"CommandLine":     foreign,
		"Env":             in,
		"Cwd":             in,
		"Capabilities":    inside,
		"Rlimits":         in,
		"NoNewPrivileges": in,
		"ApparmorProfile": in,
		"OOMScoreAdj":     own,
		"Scheduler":       in,
		"SelinuxLabel":    in,
		"IOPriority":      in,
		"ExecCPUAffinity": "of processes that are executed later, by the new spec",
	}},
	{func(s *specs.Spec) any { return &s.Process.User }, map[string]string{
		"UID": in, "GID": in, "Umask": in, "AdditionalGids": in, "Username": foreign,
	}},
	{func(s *specs.Spec) any { return s.Process.Capabilities }, map[string]string{
		"Bounding": in, "Effective": in, "Inheritable": in, "Permitted": in, "Ambient": in,
	}},
	{func(s *specs.Spec) any { return &s.Process.Rlimits[0] }, map[string]string{
		"Type": in, "Hard": in, "Soft": in,
	}},
	{func(s *specs.Spec) any { return s.Process.Scheduler }, map[string]string{
		"Policy": in, "Nice": in, "Priority": in, "Flags": in, "Runtime": in, "Deadline": in, "Period": in,
	}},
	{func(s *specs.Spec) any { return s.Process.IOPriority }, map[string]string{
		"Class": in, "Priority": in,
	}},
	{func(s *specs.Spec) any { return s.Root }, map[string]string{
		"Path": own, "Readonly": in,
	}},
	{func(s *specs.Spec) any { return &s.Mounts[0] }, map[string]string{
		"Destination": in, "Type": in, "Source": in, "Options": in,
		"UIDMappings": "an obstacle: libcontainer cannot restore it", "GIDMappings": "an obstacle: libcontainer cannot restore it",
	}},
	{func(s *specs.Spec) any { return &s.Mounts[1] }, map[string]string{
		"Destination": in, "Options": in,
		"Type":        "a bind mount whatever its type says",
		"Source":      "of a bind mount: the new container's own, applied to a clone",
		"UIDMappings": "an obstacle", "GIDMappings": "an obstacle",
	}},
	{func(s *specs.Spec) any { return s.Hooks }, map[string]string{
		"Prestart": in, "CreateRuntime": in, "CreateContainer": in, "StartContainer": in, "Poststart": in, "Poststop": in,
	}},
	{func(s *specs.Spec) any { return &s.Hooks.CreateRuntime[0] }, map[string]string{
		"Path": "names the container, as its arguments do", "Args": "name the container", "Env": "names the container", "Timeout": "of the hook",
	}},
	{func(s *specs.Spec) any { return s.Linux }, map[string]string{
		"UIDMappings":       "an obstacle: user namespaces",
		"GIDMappings":       "an obstacle: user namespaces",
		"Sysctl":            in,
		"Resources":         own,
		"CgroupsPath":       own,
		"Namespaces":        in,
		"Devices":           in,
		"NetDevices":        obstacle,
		"Seccomp":           in,
		"RootfsPropagation": in,
		"MaskedPaths":       in,
		"ReadonlyPaths":     in,
		"MountLabel":        in,
		"IntelRdt":          obstacle,
		"MemoryPolicy":      in,
		"Personality":       in,
		"TimeOffsets":       in,
	}},
	{func(s *specs.Spec) any { return &s.Linux.Namespaces[0] }, map[string]string{
		"Type": in, "Path": in,
	}},
	{func(s *specs.Spec) any { return &s.Linux.Namespaces[1] }, map[string]string{
		"Type": in, "Path": "any path is one: the new container's own",
	}},
	{func(s *specs.Spec) any { return &s.Linux.Devices[0] }, map[string]string{
		"Path": in, "Type": in, "Major": in, "Minor": in, "FileMode": in, "UID": in, "GID": in,
	}},
	{func(s *specs.Spec) any { return s.Linux.Seccomp }, map[string]string{
		"DefaultAction": in, "DefaultErrnoRet": in, "Architectures": in, "Flags": in, "ListenerPath": in, "ListenerMetadata": in, "Syscalls": in,
	}},
	{func(s *specs.Spec) any { return &s.Linux.Seccomp.Syscalls[0] }, map[string]string{
		"Names": in, "Action": in, "ErrnoRet": in, "Args": in,
	}},
	{func(s *specs.Spec) any { return s.Linux.Personality }, map[string]string{
		"Domain": in, "Flags": in,
	}},
	{func(s *specs.Spec) any { return s.Linux.MemoryPolicy }, map[string]string{
		"Mode": in, "Nodes": in, "Flags": in,
	}},
}

// full returns a spec in which everything is set that a struct of the table is in.
func full() *specs.Spec {
	umask, id, mode, timeout := uint32(0o027), uint32(1), os.FileMode(0o600), 3
	return &specs.Spec{
		Version: "1.3.0",
		Process: &specs.Process{
			User: specs.User{UID: 1, GID: 2, Umask: &umask, AdditionalGids: []uint32{4, 3}},
			Args: []string{"a", "b"}, Env: []string{"A=1", "B=2", "C=3"}, Cwd: "/w",
			Capabilities: &specs.LinuxCapabilities{
				Bounding: []string{"CAP_A", "CAP_B"}, Effective: []string{"CAP_A", "CAP_B"}, Inheritable: []string{"CAP_A", "CAP_B"},
				Permitted: []string{"CAP_A", "CAP_B"}, Ambient: []string{"CAP_A", "CAP_B"},
			},
			Rlimits:    []specs.POSIXRlimit{{Type: "RLIMIT_CORE", Hard: 2, Soft: 1}, {Type: "RLIMIT_NOFILE", Hard: 4, Soft: 3}},
			Scheduler:  &specs.Scheduler{Policy: specs.SchedBatch, Nice: 1},
			IOPriority: &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 1},
		},
		Root: &specs.Root{Path: "/r"},
		Mounts: []specs.Mount{
			{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755"}},
			{Destination: "/data", Type: "bind", Source: "/host", Options: []string{"rbind", "ro"}},
		},
		Hooks: &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/h", Timeout: &timeout}}},
		Linux: &specs.Linux{
			Sysctl:     map[string]string{"a.b": "1", "c.d": "2"},
			Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.NetworkNamespace, Path: "/n"}},
			Devices: []specs.LinuxDevice{
				{Path: "/dev/a", Type: "c", Major: 1, Minor: 2, FileMode: &mode, UID: &id, GID: &id}, {Path: "/dev/b", Type: "b"},
			},
			Seccomp:       &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}}}},
			MaskedPaths:   []string{"/m1", "/m2"},
			ReadonlyPaths: []string{"/r1", "/r2"},
			Personality:   &specs.LinuxPersonality{Domain: specs.PerLinux},
			MemoryPolicy:  &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0"},
			TimeOffsets:   map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1}},
		},
	}
}

// TestEveryFieldIsDecided changes every field of the spec alone, and expects the
// fingerprint to change exactly if the table says so.
func TestEveryFieldIsDecided(t *testing.T) {
	want := Fingerprint(full(), "image")
	for _, d := range decided {
		typ := reflect.TypeOf(d.of(full())).Elem()
		for i := range typ.NumField() {
			name := typ.Field(i).Name
			reason, ok := d.fields[name]
			if !ok {
				t.Errorf("nobody decided whether %s.%s is part of the fingerprint", typ, name)
				continue
			}
			if reason == inside {
				continue
			}
			s := full()
			perturb(t, reflect.ValueOf(d.of(s)).Elem().Field(i))
			diff := want.Diff(Fingerprint(s, "image"))
			if reason == in && len(diff) == 0 {
				t.Errorf("changing %s.%s leaves the fingerprint as it is", typ, name)
			}
			if reason != in && len(diff) > 0 {
				t.Errorf("changing %s.%s changes %q, and should not: %s", typ, name, diff, reason)
			}
		}
		if n := typ.NumField(); n != len(d.fields) {
			t.Errorf("%s has %d fields, the table %d", typ, n, len(d.fields))
		}
	}
}

// perturb changes v, whatever it is.
func perturb(t *testing.T, v reflect.Value) {
	t.Helper()
	switch v.Kind() {
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(v.Int() + 1)
	case reflect.Uint, reflect.Uint32, reflect.Uint64:
		v.SetUint(v.Uint() + 1)
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		} else {
			perturb(t, v.Elem())
		}
	case reflect.Slice:
		e := reflect.New(v.Type().Elem()).Elem()
		if e.Kind() != reflect.Struct {
			perturb(t, e)
		}
		v.Set(reflect.Append(v, e))
	case reflect.Map:
		if v.IsNil() {
			v.Set(reflect.MakeMap(v.Type()))
		}
		v.SetMapIndex(reflect.ValueOf("new"), reflect.New(v.Type().Elem()).Elem())
	case reflect.Struct:
		perturb(t, v.Field(0))
	default:
		t.Fatalf("do not know how to change a %s", v.Type())
	}
}

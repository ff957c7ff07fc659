package libct

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The errors that are told apart.
func TestContractErrors(t *testing.T) {
	b, p, c, init := begin(t, "echo begun; read line")
	cfg, err := b.spec.config()
	must(t, err)
	for name, e := range map[string]struct{ err, want error }{
		"Create of an ID that is taken": {second(libcontainer.Create(b.runtime.Root, b.spec.ID, cfg)), libcontainer.ErrExist},
		"Create of a bad ID":            {second(libcontainer.Create(b.runtime.Root, "a/b", cfg)), libcontainer.ErrInvalidID},
		"Load of what is not there":     {second(libcontainer.Load(b.runtime.Root, "none")), libcontainer.ErrNotExist},
		"Resume of a running one":       {c.c.Resume(), libcontainer.ErrNotPaused},
	} {
		if !errors.Is(e.err, e.want) {
			t.Errorf("%s: %v", name, e.err)
		}
	}
	if err := c.c.Destroy(); err == nil {
		t.Error("a running container was destroyed")
	}
	p.send(t, "end")
	waitFor(t, init)
	for name, err := range map[string]error{"Pause": c.c.Pause(), "Signal": c.c.Signal(unix.SIGTERM)} {
		if !errors.Is(err, libcontainer.ErrNotRunning) {
			t.Errorf("%s of a stopped container: %v", name, err)
		}
	}
	if err := init.p.Signal(unix.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("Signal to a dead process: %v", err)
	}
	must(t, c.Destroy())
	b.wantNothing()
}

func second[T any](_ T, err error) error { return err }

// The words that clients look for in the error of a start.
func TestContractWords(t *testing.T) {
	for args, want := range map[string]string{
		"/nonexistent": `exec: "/nonexistent": stat /nonexistent: no such file or directory`,
		"nonexistent":  `exec: "nonexistent": executable file not found in $PATH`,
		"/bin":         `exec: "/bin": is a directory`,
	} {
		b := newBundle(t, "")
		b.spec.OCI.Process.Args = []string{args}
		if _, _, err := b.runtime.Boot(t.Context(), b.spec, newPipes(t).files); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
		b.wantNothing()
	}
}

// The path of a container's cgroup, for both drivers: libcontainer derives it from
// the spec, and the shim asks libcontainer.
func TestContractCgroupPaths(t *testing.T) {
	b := newBundle(t, "")
	for _, c := range []struct {
		systemd bool
		path    string
		want    cgroups.Cgroup
		says    string
	}{
		{path: "/a/b", want: cgroups.Cgroup{Path: "/a/b"}},
		{path: "a/b", want: cgroups.Cgroup{Path: "a/b"}},
		{path: "/a/../../b", want: cgroups.Cgroup{Path: "/b"}},
		{path: "../../b", want: cgroups.Cgroup{Path: "b"}},
		{path: "", want: cgroups.Cgroup{Name: b.spec.ID}},
		{systemd: true, path: "user.slice:snap:x", want: cgroups.Cgroup{Parent: "user.slice", ScopePrefix: "snap", Name: "x", Systemd: true}},
		{systemd: true, path: "machine.slice::x", want: cgroups.Cgroup{Parent: "machine.slice", ScopePrefix: "", Name: "x", Systemd: true}},
		{systemd: true, path: "", want: cgroups.Cgroup{ScopePrefix: "runc", Name: b.spec.ID, Systemd: true}},
		{systemd: true, path: "/a/b", says: `expected cgroupsPath to be of format "slice:prefix:name"`},
	} {
		s := b.spec
		s.SystemdCgroup = c.systemd
		oci := *s.OCI
		linux := *oci.Linux
		linux.CgroupsPath, linux.Resources = c.path, nil
		oci.Linux, s.OCI = &linux, &oci
		got, err := specconv.CreateCgroupConfig(s.createOpts(), nil)
		if c.says != "" {
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("systemd %t, %q: %v", c.systemd, c.path, err)
			}
			continue
		}
		must(t, err)
		if got.Path != c.want.Path || got.Parent != c.want.Parent || got.ScopePrefix != c.want.ScopePrefix || got.Name != c.want.Name || got.Systemd != c.want.Systemd {
			t.Errorf("systemd %t, %q: path %q, parent %q, prefix %q, name %q", c.systemd, c.path, got.Path, got.Parent, got.ScopePrefix, got.Name)
		}
	}
}

// The cgroups that a container tells: by controller on v1, under the empty name on v2.
func TestContractToldCgroups(t *testing.T) {
	b := newBundle(t, "exec sleep 1000")
	c, init := b.boot(newPipes(t))
	paths, err := c.CgroupPaths()
	must(t, err)
	needed := []string{"memory", "freezer", "pids", "devices"}
	if cgroups.IsCgroup2UnifiedMode() {
		needed = []string{""}
	}
	for _, controller := range needed {
		if st, err := os.Stat(paths[controller]); err != nil || !st.IsDir() || filepath.Base(paths[controller]) != b.spec.ID {
			t.Errorf("cgroup %q is %q, %v", controller, paths[controller], err)
		}
	}
	b.end(c, init)
	b.wantNothing()
}

// What is ours, or systemd's to tell a service, does not reach a container: neither
// our environment nor libcontainer's own, and no notify socket.
func TestContractEnvironment(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "notify"))
	t.Setenv("LISTEN_FDS", "1")
	t.Setenv("SNAP_TEST_SECRET", "yes")
	b := newBundle(t, "echo begun; exec sleep 1000")
	b.spec.OCI.Process.Env = []string{"PATH=/bin", "ONLY=this"}
	p := newPipes(t)
	c, init := b.boot(p)
	p.line(t)
	ep := newPipes(t)
	exec := &specs.Process{Args: []string{"sh", "-c", "echo begun; exec sleep 1000"}, Cwd: "/", Env: []string{"PATH=/bin", "ONLY=this"}}
	proc, err := c.Exec(t.Context(), exec, ep.files)
	must(t, err)
	ep.line(t)
	for _, pid := range []int{init.PID(), proc.PID()} {
		env, err := os.ReadFile("/proc/" + itoa(pid) + "/environ")
		must(t, err)
		for v := range strings.SplitSeq(strings.TrimRight(string(env), "\x00"), "\x00") {
			switch name, _, _ := strings.Cut(v, "="); name {
			case "PATH", "ONLY", "HOME", "SHLVL", "PWD", "OLDPWD":
			default:
				t.Errorf("process %d has %s", pid, v)
			}
		}
		mounts, err := os.ReadFile("/proc/" + itoa(pid) + "/mountinfo")
		must(t, err)
		if strings.Contains(string(mounts), "notify") {
			t.Errorf("process %d has a notify socket: %s", pid, mounts)
		}
	}
	// Init cannot be waited for as long as a process of its namespace is a zombie.
	must(t, proc.Signal(unix.SIGKILL))
	if code := waitFor(t, proc); code != 137 {
		t.Errorf("exit code %d", code)
	}
	b.end(c, init)
	b.wantNothing()
}

// Hooks of a booted container run in its bundle, and are told the user's annotations.
func TestContractHooksOfABoot(t *testing.T) {
	b := newBundle(t, "exec sleep 1000")
	said := filepath.Join(b.spec.Bundle, "said")
	b.spec.OCI.Annotations = map[string]string{"some": "annotation"}
	b.spec.OCI.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "pwd >" + said + "; /bin/cat >>" + said}}}}
	before, err := os.Getwd()
	must(t, err)
	c, init := b.boot(newPipes(t))
	data, err := os.ReadFile(said)
	must(t, err)
	dir, state, _ := strings.Cut(string(data), "\n")
	if dir != b.spec.Bundle {
		t.Errorf("the hook ran in %s", dir)
	}
	if !strings.Contains(state, `"bundle":"`+b.spec.Bundle+`"`) || !strings.Contains(state, `"annotations":{"some":"annotation"}`) {
		t.Errorf("the hook was told %s", state)
	}
	if after, err := os.Getwd(); err != nil || after != before {
		t.Errorf("our own working directory is %s, %v", after, err)
	}
	b.end(c, init)
	b.wantNothing()
}

package parity

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// note writes what a hook sees: the state on its input, where it is, and what
// it inherits.
const note = `export PATH=/usr/bin:/bin; state=$(cat)
{
echo "hook $1 of $0"
echo "state $state"
echo "directory $(pwd)"
echo "environment $(env | grep -v -e '^PATH=' -e '^PWD=' -e '^SHLVL=' -e '^_=' -e '^OLDPWD=' -e '^OTEL_SERVICE_NAME=' | sort | tr '\n' ' ')"
for n in mnt pid net uts ipc cgroup; do echo "$n $(readlink /proc/self/ns/$n)"; done
} >%[1]s.new
cat %[1]s.new >>%[1]s`

// hooks are hooks of all six kinds, which note to a file what they see.
func hooks(file string) *specs.Hooks {
	hook := func(kind string) []specs.Hook {
		var all []specs.Hook
		for _, n := range []string{"1", "2"} {
			all = append(all, specs.Hook{
				Path: "/bin/sh", Args: []string{"sh", "-c", fmt.Sprintf(note, file), kind, n}, Env: []string{"HOOK=" + kind},
			})
		}
		// Without an environment of its own.
		all[1].Env = nil
		return all
	}
	return &specs.Hooks{
		Prestart: hook("prestart"), CreateRuntime: hook("createRuntime"), CreateContainer: hook("createContainer"), //nolint:staticcheck // runc still runs prestart hooks
		StartContainer: hook("startContainer"), Poststart: hook("poststart"), Poststop: hook("poststop"),
	}
}

// TestHooks: each kind runs when it should, where it should, and is told the state.
func TestHooks(t *testing.T) {
	compare(t, "hooks", func(s *side) {
		c, file := s.withHooks("")
		s.must(c.task.Kill(s.context(), unix.SIGKILL))
		c.wait()
		c.seeHooks("when it has ended", file)
		_, err := c.task.Delete(s.context())
		s.must(err)
		c.seeHooks("when it is deleted", file)
	})
	compare(t, "hooks of a task that is never started", func(s *side) {
		dir := s.TempDir()
		file := filepath.Join(dir, "said")
		c := s.created(shell("sleep 1000", append(bind(dir, dir), edit(func(sp *oci.Spec) { sp.Hooks = hooks(file) }))...))
		c.seeHooks("created", file)
		s.must(c.task.Kill(s.context(), unix.SIGKILL))
		c.wait()
		_, err := c.task.Delete(s.context())
		s.must(err)
		c.seeHooks("deleted", file)
	})
	compare(t, "hooks in a pod", func(s *side) {
		// Two containers in one shim: the hooks of the second are to see its own bundle.
		group := s.group()
		first := s.started(shell("sleep 1000", oci.WithAnnotations(map[string]string{"io.containerd.runc.v2.group": group})))
		second, file := s.withHooks(group)
		s.see("one shim", "%t", first.address() == second.address())
		s.must(second.task.Kill(s.context(), unix.SIGKILL))
		second.wait()
		_, err := second.task.Delete(s.context(), client.WithProcessKill)
		s.must(err)
		second.seeHooks("deleted", file)
	})
}

// withHooks is a container with hooks of all kinds, which runs.
func (s *side) withHooks(group string) (c *container, file string) {
	s.Helper()
	dir := s.TempDir()
	file = filepath.Join(dir, "said")
	opts := append(bind(dir, dir), edit(func(sp *oci.Spec) { sp.Hooks = hooks(file) }), oci.WithAnnotations(map[string]string{"some.annotation": "value"}))
	if group != "" {
		opts = append(opts, oci.WithAnnotations(map[string]string{"io.containerd.runc.v2.group": group}))
	}
	c = s.created(shell("sleep 1000", opts...))
	c.seeHooks("created", file)
	s.must(c.task.Start(s.context()))
	// Those inside of the container may still be at it.
	s.eventually(func() error {
		data, err := os.ReadFile(file)
		if err == nil && strings.Count(string(data), "cgroup ") < 2 {
			err = fmt.Errorf("startContainer hooks said %s", data)
		}
		return err
	})
	c.seeHooks("started", file)
	return c, file
}

// seeHooks notes what the hooks have said since.
func (c *container) seeHooks(when, file string) {
	c.Helper()
	data, err := os.ReadFile(file)
	if !os.IsNotExist(err) {
		c.must(err)
		c.must(os.WriteFile(file, nil, 0o600))
	}
	var said []string
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch key {
		case "state":
			value = c.normalState(value)
		case "mnt", "pid", "net", "uts", "ipc", "cgroup":
			value = c.whose(key, value)
		}
		text := key + " " + c.normal(value)
		if key == "directory" && when == "deleted" {
			// The stock shim of a pod runs them in the bundle of its first container.
			text = strings.Replace(text, "/NS/another", "/NS/ID", 1)
		}
		said = append(said, text)
	}
	c.see("hooks when "+when, "%s", strings.Join(said, "\n"))
}

// normalState takes out of a state what differs: the pid.
func (c *container) normalState(text string) string {
	c.Helper()
	var st specs.State
	if err := json.Unmarshal([]byte(text), &st); err != nil {
		return text
	}
	if c.task != nil && st.Pid == int(c.task.Pid()) || c.task == nil && st.Pid > 0 {
		st.Pid = 1
	}
	data, err := json.Marshal(st)
	c.must(err)
	return string(data)
}

// whose says whose namespace a hook was in.
func (c *container) whose(kind, ns string) string {
	if host, err := os.Readlink("/proc/self/ns/" + kind); err == nil && host == ns {
		return "the host's"
	}
	return "not the host's"
}

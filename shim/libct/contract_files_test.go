package libct

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The files of a container's state: what Remove and a restore's clean-up expect.
func TestContractStateDirectory(t *testing.T) {
	b := newBundle(t, "exec sleep 1000")
	c, init, err := b.runtime.Boot(t.Context(), b.spec, newPipes(t).files)
	must(t, err)
	t.Cleanup(b.remove)
	dir := filepath.Join(b.runtime.Root, b.spec.ID)
	names := func() []string {
		entries, err := os.ReadDir(dir)
		must(t, err)
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	if got := names(); !slices.Equal(got, []string{"exec.fifo", "state.json"}) {
		t.Errorf("a created container has %v", got)
	}
	must(t, c.Release())
	if got := names(); !slices.Equal(got, []string{"state.json"}) {
		t.Errorf("a running container has %v", got)
	}
	view, err := libcontainer.Load(b.runtime.Root, b.spec.ID)
	must(t, err)
	if st, err := view.State(); err != nil || st.InitProcessPid != init.PID() || st.InitProcessStartTime == 0 {
		t.Errorf("a loaded container tells %+v, %v", st, err)
	}
	b.end(c, init)
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("a destroyed container's directory: %v", err)
	}
	b.wantNothing()
}

// A restore as libcontainer does it: whose child the held process is, in whose
// cgroup CRIU runs, what is mounted where, and what stays of it.
func TestContractRestore(t *testing.T) {
	b, d := checkpointed(t, Dump{Detached: true})
	n := b.again(t)
	n.spec.OCI.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "/bin/true"}}}
	rs, _ := n.hold(d, newPipes(t))
	if p, ok := stat(rs.PID()); !ok || p.parent != os.Getpid() {
		t.Errorf("the held process is a child of %d, not ours", p.parent)
	}
	if len(rs.criu) == 0 {
		t.Error("no CRIU was found in the container's cgroup")
	}
	for _, pid := range rs.criu {
		comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil || !strings.Contains(string(comm), "criu") {
			t.Errorf("process %d in the container's cgroup is %q, %v", pid, comm, err)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	criuRoot := filepath.Join(n.runtime.Root, n.spec.ID, "criu-root")
	if !strings.Contains(string(mounts), " "+criuRoot+" ") {
		t.Errorf("nothing is mounted at %s", criuRoot)
	}
	c, init := n.finish(rs, d)
	if _, err := os.Stat(criuRoot); !os.IsNotExist(err) {
		t.Errorf("%s stays: %v", criuRoot, err)
	}
	// The function hooks that held it are not part of its state, the spec's are.
	view, err := libcontainer.Load(n.runtime.Root, n.spec.ID)
	must(t, err)
	hooks, err := json.Marshal(view.Config().Hooks)
	must(t, err)
	if got := string(hooks); strings.Count(got, `"path"`) != 1 || !strings.Contains(got, "/bin/true") {
		t.Errorf("hooks of the restored container: %s", got)
	}
	n.end(c, init)
	n.wantNothing()
}

// descriptors.json is what re-attaches the streams: three names of pipes.
func TestContractDescriptors(t *testing.T) {
	_, d := checkpointed(t, Dump{Detached: true})
	data, err := os.ReadFile(filepath.Join(d.Dir, "descriptors.json"))
	must(t, err)
	var names []string
	must(t, json.Unmarshal(data, &names))
	if len(names) != 3 {
		t.Fatalf("%q", names)
	}
	for _, name := range names {
		if !strings.HasPrefix(name, "pipe:[") {
			t.Errorf("%q", name)
		}
	}
}

// CRIU reads the file that the container's label names during a call, and no other.
func TestContractCRIUConfig(t *testing.T) {
	b, _, c, init := begin(t, "echo begun; exec sleep 1000")
	must(t, os.WriteFile(filepath.Join(b.spec.Bundle, CRIUConfigFile), []byte("no-such-option\n"), 0o600))
	d := Dump{Images: Images{Dir: t.TempDir(), Work: t.TempDir()}}
	if err := c.Dump(t.Context(), d); err == nil {
		t.Error("CRIU does not read the file that it is told")
	}
	b.configureCRIU()
	must(t, c.Dump(t.Context(), d))
	b.end(c, init)
	b.wantNothing()
}

// CRIU's title names the dump and the process, by which killDump finds it.
func TestContractDumpTitle(t *testing.T) {
	b, _, c, init := begin(t, "echo begun; exec sleep 1000")
	b.configureCRIU()
	done := make(chan error, 1)
	go func() { done <- c.Dump(t.Context(), Dump{Images: Images{Dir: t.TempDir(), Work: t.TempDir()}}) }()
	var titles []string
	for found := false; !found; {
		select {
		case err := <-done:
			must(t, err)
			t.Fatalf("no child of ours was called a dump of %d; there were %q", init.PID(), titles)
		case <-time.After(time.Millisecond):
		}
		for _, child := range children() {
			title, err := os.ReadFile("/proc/" + itoa(child) + "/cmdline")
			if err != nil {
				continue
			}
			if !slices.Contains(titles, string(title)) {
				titles = append(titles, string(title))
			}
			found = found || isDumpOf(string(title), init.PID())
		}
	}
	must(t, <-done)
	b.end(c, init)
	b.wantNothing()
}

// A killed CRIU's held tree, and one that is frozen, can be killed by the cgroup.
func TestContractKillFrozen(t *testing.T) {
	b, _, c, init := begin(t, "sleep 1000 & echo begun; exec sleep 1000")
	must(t, c.Freeze())
	must(t, c.c.Signal(unix.SIGKILL))
	if code := waitFor(t, init); code != 137 {
		t.Errorf("exit code %d", code)
	}
	must(t, c.Destroy())
	b.wantNothing()
}

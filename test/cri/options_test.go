package cri

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/containerd-snap/snap/shim/capture"
	"github.com/containerd-snap/snap/test/harness"
)

// The handlers that have options, beside tuned.
const (
	fromFile    = "snap-file"    // options in a file that ConfigPath names
	wrong       = "snap-wrong"   // a key that does not exist
	systemd     = "snap-systemd" // the systemd cgroup driver
	runcSystemd = "runc-systemd"
	eager       = "snap-eager" // captures may follow each other closely
)

// stateDir is where shims of the handler tuned keep their containers' state, and
// workDir where CRIU writes its logs.
var stateDir, workDir string

// shimCgroup is the cgroup that they join, in the hierarchy that prepareOptions finds.
var shimCgroup = fmt.Sprintf("/snap-cri-%d", os.Getpid())

// optionHandlers are the handlers with options.
func optionHandlers(dir string) ([]harness.Handler, error) {
	stateDir, workDir = filepath.Join(dir, "state"), filepath.Join(dir, "work")
	file := filepath.Join(dir, "handler.toml")
	if err := os.WriteFile(file, []byte("NoNewKeyring = true\n[defaults]\nrestore = \"Never\"\n"), 0o600); err != nil {
		return nil, err
	}
	body := fmt.Sprintf("Root = %q\nCriuWorkPath = %q\nShimCgroup = %q\nIoUid = 1001\nIoGid = 1002\nNoNewKeyring = true\nBinaryName = \"\"\nSystemdCgroup = false\n",
		stateDir, workDir, shimCgroup)
	return []harness.Handler{
		{Name: tuned, Runtime: harness.Runtime, Network: ptp, Options: body},
		{Name: fromFile, Runtime: harness.Runtime, Network: ptp, Options: fmt.Sprintf("ConfigPath = %q", file)},
		{Name: wrong, Runtime: harness.Runtime, Network: ptp, Options: "SystemCgroup = true"},
		{Name: systemd, Runtime: harness.Runtime, Network: ptp, Options: "SystemdCgroup = true"},
		{Name: eager, Runtime: harness.Runtime, Network: bridge, Options: "capture.min_interval = \"1s\""},
		{Name: runcSystemd, Runtime: "io.containerd.runc.v2", Network: ptp, Options: "SystemdCgroup = true"},
	}, nil
}

// shimCgroupDir is the directory of the cgroup that shims join.
func shimCgroupDir() string {
	top := "/sys/fs/cgroup"
	if _, err := os.Stat(filepath.Join(top, "cgroup.controllers")); err != nil {
		top = filepath.Join(top, "pids")
	}
	return filepath.Join(top, shimCgroup)
}

// TestOptions: what a handler's table says reaches the shim.
func TestOptions(t *testing.T) {
	t.Parallel()
	p := runPod(t, tuned)
	c := p.startProbe("web")
	before := c.probe()
	for _, id := range []string{p.id, c.id} {
		if _, err := os.Stat(filepath.Join(stateDir, node.Namespace, id, "state.json")); err != nil {
			t.Errorf("Root: %v", err)
		}
	}
	if shim := shimOf(t, c.pid()); !slices.ContainsFunc(shim.Cgroups, func(l string) bool { return strings.HasSuffix(l, ":"+shimCgroup) }) {
		t.Errorf("ShimCgroup: the shim is in %q", shim.Cgroups)
	}
	var st unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/fd/1", c.pid()), &st); err != nil || st.Gid != 1002 {
		// The user of the process gets them from init, under the stock runtime as well.
		t.Errorf("IoGid: standard output belongs to %d:%d, %v", st.Uid, st.Gid, err)
	}
	e := c.capture(capture.Request{})
	if logs, err := filepath.Glob(filepath.Join(workDir, "*")); err != nil || len(logs) == 0 {
		t.Errorf("CriuWorkPath: %s is empty, %v", workDir, err)
	}
	// The clean-up after a shim that was killed knows them, too.
	if err := unix.Kill(shimOf(t, c.pid()).PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	c.ended()
	c.remove()
	p.gone(c.id)
	q := runPod(t, tuned)
	d := q.startProbe("web")
	d.restored(e)
	d.goesOn(before)
}

// TestOptionsFile: a handler's file sets what containers get that do not say
// otherwise.
func TestOptionsFile(t *testing.T) {
	t.Parallel()
	p := runPod(t, fromFile)
	c := p.startProbe("web")
	c.booted("Never")
	before := c.probe()
	e := c.capture(capture.Request{})
	c.stop(5)
	c.remove()
	d := p.startProbe("web")
	d.booted("Never")
	if s := d.probe(); s.Token == before.Token {
		t.Error("the container was restored")
	}
	q := runPod(t, fromFile, func(c *runtimeapi.PodSandboxConfig) {
		c.Annotations = map[string]string{"io.containerd.snap.v2/restore.web": "IfPresent"}
	})
	b := q.startProbe("web")
	b.restored(e)
	b.goesOn(before)
}

// TestOptionsRefused: options that cannot be are refused, in words.
func TestOptionsRefused(t *testing.T) {
	t.Parallel()
	for handler, words := range map[string][]string{
		wrong: {`"SystemCgroup"`, "SystemdCgroup"},
		// The pod's cgroup is not one of systemd's.
		systemd:     {"systemd cgroups"},
		runcSystemd: {"systemd cgroups"},
	} {
		p := newPod(t, handler)
		id, err := runtime.RunPodSandbox(testContext(t), p.config, handler)
		p.id = id
		if err == nil {
			t.Errorf("%s: the pod runs", handler)
			continue
		}
		for _, w := range words {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v lacks %q", handler, err, w)
			}
		}
	}
}

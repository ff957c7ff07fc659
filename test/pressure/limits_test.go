package pressure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/test/harness"
)

// limit sets a container's resources.
func limit(set func(*specs.LinuxResources)) []oci.SpecOpts {
	return []oci.SpecOpts{func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		if s.Linux.Resources == nil {
			s.Linux.Resources = &specs.LinuxResources{}
		}
		set(s.Linux.Resources)
		return nil
	}}
}

func memoryLimit(bytes int64) []oci.SpecOpts {
	return limit(func(r *specs.LinuxResources) { r.Memory = &specs.LinuxMemory{Limit: &bytes, Swap: &bytes} })
}

func pidsLimit(n int64) []oci.SpecOpts {
	return limit(func(r *specs.LinuxResources) { r.Pids = &specs.LinuxPids{Limit: &n} })
}

// outcome is how a container's short life went: how it ended, or what kept it
// from starting.
func outcome(t *testing.T, n *harness.Node, runtime string, opts []oci.SpecOpts, args ...string) string {
	t.Helper()
	c, err := start(testContext(t), n, runtime, "limited", opts, args...)
	text := ""
	if err == nil {
		var status uint32
		status, err = c.wait(testContext(t))
		text = fmt.Sprintf("exit %d", status)
		if rerr := c.remove(); rerr != nil {
			t.Errorf("%s: %v", runtime, rerr)
		}
	}
	if err != nil {
		text = err.Error()
	}
	left, err := n.Settle(t.Context())
	if err != nil || !left.Empty() {
		t.Fatalf("%s: %s: something is left (%v):\n%s", runtime, text, err, left)
	}
	return text
}

// TestLimits: within tight limits our runtime starts what the stock one starts,
// and where it cannot it says why. Nothing is left either way.
func TestLimits(t *testing.T) {
	n := newNode(t, harness.Options{})
	eat := []string{"sh", "-c", "x=xxxxxxxxxxxxxxxx; while :; do x=$x$x; done"}
	for name, c := range map[string]struct {
		opts []oci.SpecOpts
		args []string
		// want is how it ends where the stock runtime manages to start it.
		want string
	}{
		"10 MB":             {memoryLimit(10 << 20), []string{"true"}, "exit 0"},
		"10 MB, and more":   {memoryLimit(10 << 20), eat, "exit 137"},
		"64 processes":      {pidsLimit(64), []string{"true"}, "exit 0"},
		"10 processes":      {pidsLimit(10), []string{"true"}, "exit 0"},
		"1 process":         {pidsLimit(1), []string{"true"}, "exit 0"},
		"1 process, a fork": {pidsLimit(1), []string{"sh", "-c", "true & wait; ls /proc/self >/dev/null"}, "exit 2"},
	} {
		stock := outcome(t, n, runc, c.opts, c.args...)
		ours := outcome(t, n, snap, c.opts, c.args...)
		t.Logf("%s: stock: %s; ours: %s", name, stock, ours)
		if strings.HasPrefix(stock, "exit ") && ours != c.want {
			t.Errorf("%s: ours: %s, want %s; the stock runtime: %s", name, ours, c.want, stock)
		}
	}
}

// TestFullPIDs: an exec'd process in a container that has as many as it may
// cannot fork, and may itself not start. The container goes on.
func TestFullPIDs(t *testing.T) {
	n := newNode(t, harness.Options{})
	for _, name := range []string{runc, snap} {
		c, err := start(testContext(t), n, name, "full", pidsLimit(20), "sh", "-c", "for i in $(seq 19); do sleep 1000 & done; wait")
		if err != nil {
			t.Fatal(err)
		}
		for end, pids := time.Now().Add(deadline), 0; pids < 20; {
			all, err := c.task.Pids(testContext(t))
			if err != nil || time.Now().After(end) {
				t.Fatalf("%s: %d processes, %v", name, len(all), err)
			}
			pids = len(all)
		}
		err = c.exec(testContext(t), "one-too-many", "sh", "-c", "true & wait")
		t.Logf("%s: %v", name, err)
		if err == nil {
			t.Errorf("%s: one process more than the limit", name)
		}
		if s, err := c.task.Status(testContext(t)); err != nil || s.Status != client.Running {
			t.Errorf("%s: the task is %s, %v", name, s.Status, err)
		}
		if err := c.remove(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		left, err := n.Settle(t.Context())
		if err != nil || !left.Empty() {
			t.Errorf("%s: something is left (%v):\n%s", name, err, left)
		}
	}
}

// smallDisk mounts a disk of 256 KiB over a directory, until the test ends or
// the returned function is called.
func smallDisk(t *testing.T, dir string) (unmount func()) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k,mode=0711"); err != nil {
		t.Fatal(err)
	}
	mounted := true
	unmount = func() {
		if mounted {
			mounted = false
			if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(unmount)
	return unmount
}

// fill leaves so many pages free on the disk of a directory.
func fill(t *testing.T, dir string, pages int) (free func()) {
	t.Helper()
	path := filepath.Join(filepath.Dir(dir), filepath.Base(dir), ".fill")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	if n := int64(st.Bavail) - int64(pages); n > 0 {
		if _, err := f.Write(make([]byte, n*st.Bsize)); err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
}

// disks are the directories that a start writes to, by their names in the test.
func disks(n *harness.Node, runtime string) map[string]string {
	return map[string]string{
		"bundle": filepath.Join(n.Dir, "state", "io.containerd.runtime.v2.task", n.Namespace),
		"state":  filepath.Join("/run/containerd", runtime, n.Namespace),
	}
}

// TestFullDisk: without space for what a start writes it fails and says so,
// leaves nothing, and works when there is space. What runs when the disk fills
// ends as it would otherwise.
func TestFullDisk(t *testing.T) {
	for _, name := range []string{runc, snap} {
		for _, disk := range []string{"bundle", "state"} {
			t.Run(name+"/"+disk, func(t *testing.T) {
				n := newNode(t, harness.Options{})
				dir := disks(n, name)[disk]
				unmount := smallDisk(t, dir)
				failed := 0
				for pages := range 6 {
					free := fill(t, dir, pages)
					c, err := start(testContext(t), n, name, fmt.Sprint("full", pages), nil, "true")
					if err == nil {
						// It took what was left; its end may have found none.
						if status, err := c.wait(testContext(t)); err != nil || status != 0 {
							t.Errorf("with %d pages: exit status %d, %v", pages, status, err)
						}
						if err := c.remove(); err != nil {
							t.Errorf("with %d pages: %v", pages, err)
						}
					} else {
						failed++
						// The stock runtime does not always say.
						if name == snap && !strings.Contains(err.Error(), "no space left on device") {
							t.Errorf("with %d pages: %v", pages, err)
						}
					}
					free()
					clean(t, n, name, dir)
				}
				if failed == 0 {
					t.Error("the disk was never full")
				}
				fillsLater(t, n, name, dir)
				clean(t, n, name, dir)
				unmount()
			})
		}
	}
}

// fillsLater lets the disk fill under a running task.
func fillsLater(t *testing.T, n *harness.Node, runtime, dir string) {
	t.Helper()
	c, err := start(testContext(t), n, runtime, "later", nil, "sh", "-c", "trap 'exit 7' TERM; touch /ready; while :; do sleep 0.05; done")
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(deadline); c.exec(testContext(t), "ready", "ls", "/ready") != nil; {
		if time.Now().After(end) {
			t.Fatal("the program does not start")
		}
	}
	free := fill(t, dir, 0)
	defer free()
	if err := c.task.Kill(testContext(t), unix.SIGTERM); err != nil {
		t.Error(err)
	}
	if status, err := c.wait(testContext(t)); err != nil || status != 7 {
		t.Errorf("exit status %d, %v", status, err)
	}
	s, err := c.task.Delete(testContext(t))
	if err != nil || s.ExitCode() != 7 {
		t.Errorf("deleted with status %v, %v", s, err)
	}
	if err := c.Delete(testContext(t), client.WithSnapshotCleanup); err != nil {
		t.Error(err)
	}
}

// clean checks that nothing is left but the mount over dir. Where containerd had
// no space to note down the address of a shim that it had just started, it
// forgets it, whatever the runtime: the shim ends by itself, and its socket stays
// for the container's next shim to take over. A shim of the stock runtime may stay as well:
// it waits for ever for a first call.
func clean(t *testing.T, n *harness.Node, runtime, dir string) {
	t.Helper()
	var left harness.Leftovers
	var err error
	patience := 3 * time.Second
	if runtime == snap {
		// A server that containerd could not note ends by itself, after half a minute.
		patience = 45 * time.Second
	}
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if left, err = n.Leftovers(); err != nil {
			t.Fatal(err)
		}
		if len(left.Mounts) == 1 && left.Mounts[0] == dir {
			left.Mounts = nil
		}
		if len(left.Processes) == 0 {
			dropSocket(t, n, &left)
		}
		if left.Empty() {
			return
		}
	}
	if runtime == runc {
		for _, p := range left.Processes {
			t.Logf("%s stays, and is ended", p)
			_ = unix.Kill(p.PID, unix.SIGKILL)
		}
		left.Processes = nil
		dropSocket(t, n, &left)
	}
	if left.Empty() {
		return
	}
	t.Fatalf("something is left:\n%s", left)
}

// dropSocket removes the socket of a shim that has ended, if nothing else is left.
func dropSocket(t *testing.T, n *harness.Node, left *harness.Leftovers) {
	t.Helper()
	if len(left.Files) != 1 || filepath.Dir(left.Files[0]) != filepath.Join(n.Dir, "s") {
		return
	}
	if err := os.Remove(left.Files[0]); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	left.Files = nil
}

// Package guest runs the shim where this machine cannot: under systemd, with cgroup v2
// alone, on the distribution's own kernel. `make test-guest` starts a virtual
// machine for it (see tools/in-guest). It needs no compiler in there.
package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	cgroup2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/shim/capture"
	"github.com/containerd-snap/snap/test/harness"
	"github.com/containerd-snap/snap/test/harness/run"
)

// shared is the node of all tests.
var shared *harness.Node

func TestMain(m *testing.M) { harness.Main(m, harness.Suite{Name: "guest", SetUp: prepare}) }

func prepare(ctx context.Context, _ string) (func() error, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(hierarchy, &fs); err != nil {
		return nil, err
	}
	if fs.Type != unix.CGROUP2_SUPER_MAGIC {
		return nil, errors.New("there is no cgroup v2 at " + hierarchy + ": run these tests by `make test-guest`")
	}
	busybox, err := harness.Image("busybox")
	if err != nil {
		return nil, err
	}
	if shared, err = harness.Start(ctx, harness.Options{Images: []string{busybox}}); err != nil {
		return nil, err
	}
	return shared.End, nil
}

const hierarchy = "/sys/fs/cgroup"

// The limits of the containers.
const (
	memoryMax = 64 << 20
	pidsMax   = 32
)

// counter counts, and keeps the number where an exec can read it.
const counter = `i=0; while :; do i=$((i+1)); echo $i >/n.new; mv /n.new /n; sleep 0.1; done`

// driver is a way in which cgroups are made.
type driver struct {
	name string
	// options are the runtime's, path the cgroup's in the spec.
	options any
	path    func(id string) string
	// place is where the cgroup is to be, below the hierarchy.
	place func(id string) string
}

var drivers = []driver{
	{
		name:  "cgroupfs",
		path:  func(id string) string { return "/snap-guest/" + id },
		place: func(id string) string { return "/snap-guest/" + id },
	},
	{
		name:    "systemd",
		options: &runcoptions.Options{SystemdCgroup: true},
		path:    func(id string) string { return "system.slice:snap:" + id },
		place:   func(id string) string { return "/system.slice/snap-" + id + ".scope" },
	},
}

// want is a container with limits in a cgroup of the driver's.
func (d driver) want(t *testing.T, name string) run.Want {
	w := run.Shell(counter, func(_ context.Context, _ oci.Client, c *containers.Container, s *specs.Spec) error {
		memory, pids := int64(memoryMax), int64(pidsMax)
		s.Linux.CgroupsPath = d.path(c.ID)
		// As in pods: a cgroup namespace of its own.
		s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.CgroupNamespace })
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
		s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &memory}
		s.Linux.Resources.Pids = &specs.LinuxPids{Limit: &pids}
		return nil
	})
	w.Options = d.options
	w = w.Named(t, name)
	w.ID = strings.ReplaceAll(w.ID, "_", "-")
	return w
}

// read returns a file of the container's cgroup.
func (d driver) read(t *testing.T, c *run.Container, file string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(hierarchy, d.place(c.ID()), file))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

// counted is the number that the program has come to.
func counted(t *testing.T, c *run.Container) int {
	t.Helper()
	n := 0
	run.Eventually(t, func() error {
		said, code := c.Exec("cat", "/n")
		var err error
		if n, err = strconv.Atoi(strings.TrimSpace(said)); err != nil {
			return fmt.Errorf("cat ended with %d: %q", code, said)
		}
		return nil
	})
	return n
}

// TestDrivers boots, captures and restores with either driver. Boot and clone have their
// limits and their metrics, each in its own cgroup, and leave none.
func TestDrivers(t *testing.T) {
	for _, d := range drivers {
		t.Run(d.name, func(t *testing.T) {
			booted := run.Start(t, shared, d.want(t, "booted"))
			d.holds(t, booted)
			before := counted(t, booted)
			e := booted.MustCapture(capture.Request{})
			d.holds(t, booted)

			for _, name := range []string{"clone", "another"} {
				clone := run.Start(t, shared, d.want(t, name))
				clone.MustRestored(e)
				d.holds(t, clone)
				if n := counted(t, clone); n < before {
					t.Errorf("%s goes on at %d, was captured after %d", name, n, before)
				}
				d.freezes(t, clone)
				d.ends(t, clone)
			}
			if n := counted(t, booted); n < before {
				t.Errorf("the captured program is at %d, was at %d", n, before)
			}
			d.ends(t, booted)
		})
	}
}

// holds checks that the container is in its cgroup, that its limits are in force there, and
// that its metrics are those of this cgroup.
func (d driver) holds(t *testing.T, c *run.Container) {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", c.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.TrimSpace(string(data)), "0::"+d.place(c.ID()); got != want {
		t.Errorf("%s is in %q, want %q", c.ID(), got, want)
	}
	// Its namespace hides from the container where that is.
	if seen := strings.TrimSpace(c.MustExec("cat", "/proc/1/cgroup")); seen != "0::/" {
		t.Errorf("%s sees itself in %q", c.ID(), seen)
	}
	for file, want := range map[string]int{"memory.max": memoryMax, "pids.max": pidsMax} {
		if got := d.read(t, c, file); got != strconv.Itoa(want) {
			t.Errorf("%s: %s is %s, want %d", c.ID(), file, got, want)
		}
	}
	m, err := c.Task.Metrics(run.Context(t))
	if err != nil {
		t.Fatal(err)
	}
	v, err := typeurl.UnmarshalAny(m.Data)
	if err != nil {
		t.Fatal(err)
	}
	metrics, ok := v.(*cgroup2.Metrics)
	if !ok {
		t.Fatalf("metrics of type %T", v)
	}
	if metrics.GetMemory().GetUsageLimit() != memoryMax || metrics.GetPids().GetCurrent() == 0 {
		t.Errorf("%s: metrics %v", c.ID(), metrics)
	}
}

// freezes pauses and resumes the task.
func (d driver) freezes(t *testing.T, c *run.Container) {
	t.Helper()
	if err := c.Task.Pause(run.Context(t)); err != nil {
		t.Fatal(err)
	}
	if s := c.Status(); s != client.Paused || d.read(t, c, "cgroup.freeze") != "1" {
		t.Errorf("paused, %s is %s, its freezer says %s", c.ID(), s, d.read(t, c, "cgroup.freeze"))
	}
	if err := c.Task.Resume(run.Context(t)); err != nil {
		t.Fatal(err)
	}
	if s := c.Status(); s != client.Running {
		t.Errorf("resumed, %s is %s", c.ID(), s)
	}
}

// ends ends the container; its cgroup goes with it.
func (d driver) ends(t *testing.T, c *run.Container) {
	t.Helper()
	c.Kill(unix.SIGKILL)
	if code := c.Wait(); code != 137 {
		t.Errorf("%s ended with %d", c.ID(), code)
	}
	c.DeleteTask()
	run.Eventually(t, func() error {
		if _, err := os.Stat(filepath.Join(hierarchy, d.place(c.ID()))); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("cgroup %s is still there (%w)", d.place(c.ID()), err)
		}
		return nil
	})
}

// TestOOM: what uses more memory than its limit is killed, and that is told, of a clone too.
func TestOOM(t *testing.T) {
	for _, d := range drivers {
		t.Run(d.name, func(t *testing.T) {
			booted := run.Start(t, shared, d.want(t, "booted"))
			counted(t, booted)
			e := booted.MustCapture(capture.Request{})
			clone := run.Start(t, shared, d.want(t, "clone"))
			clone.MustRestored(e)
			events, errs := shared.Client().EventService().Subscribe(t.Context(), `topic=="/tasks/oom"`)
			if _, code := clone.Exec("dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1"); code == 0 {
				t.Error("a process used more than the limit")
			}
			select {
			case <-events:
			case err := <-errs:
				t.Error(err)
			case <-run.Context(t).Done():
				t.Error("no OOM was told")
			}
			d.ends(t, clone)
			d.ends(t, booted)
		})
	}
}

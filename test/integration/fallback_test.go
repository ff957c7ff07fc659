package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/store"
	"github.com/containerd-snap/snap/shim/capture"
	"github.com/containerd-snap/snap/test/harness"
)

// failure is a way in which a restore fails.
type failure struct {
	// says is what the record must say of it.
	says string
	// decision: it is foreseen, so that the start decides to boot, rather than
	// tries and falls back.
	decision bool
	// late: it fails only at Start.
	late bool
	// opts are for the captured container and its clones.
	opts func(t *testing.T) []oci.SpecOpts
	args []string
	// damage is done before the clone is made, prepare between its making and
	// its task's, meddle between Create and Start.
	damage  func(t *testing.T, n *harness.Node, e checkpoint.Entry)
	prepare func(t *testing.T, c *container)
	meddle  func(t *testing.T, c *container)
}

// failures is the matrix of what can go wrong.
var failures = map[string]failure{
	"no CRIU": {
		says: "no CRIU", decision: true,
		damage: func(t *testing.T, n *harness.Node, _ checkpoint.Entry) { t.Helper(); replaceCRIU(t, n, "") },
	},
	"CRIU fails at once": {
		says: "CRIU",
		damage: func(t *testing.T, n *harness.Node, _ checkpoint.Entry) {
			t.Helper()
			wrapCRIU(t, n, `[ "$1" = swrk ] && exit 1`)
		},
	},
	"CRIU is killed before the task exists": {
		says: "CRIU",
		damage: func(t *testing.T, n *harness.Node, _ checkpoint.Entry) {
			t.Helper()
			wrapCRIU(t, n, `[ "$1" = swrk ] && (sleep 0.01; kill -9 $$) &`)
		},
	},
	"CRIU is killed when the task exists": {says: "CRIU", meddle: killHolder},
	"the task is killed by a stranger": {says: "restore container", meddle: func(t *testing.T, c *container) {
		t.Helper()
		if err := unix.Kill(c.pid(), unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}},
	"images missing":      {says: "damaged", damage: onFile("core-1.img", os.Remove)},
	"inventory missing":   {says: "damaged", damage: onFile("inventory.img", os.Remove)},
	"descriptors missing": {says: "damaged", damage: onFile("descriptors.json", os.Remove)},
	"images truncated":    {says: "damaged", damage: onFile("mm-1.img", func(path string) error { return os.Truncate(path, 20) })},
	"images changed":      {says: "damaged", damage: onFile("core-1.img", flipBit)},
	"pages truncated":     {says: "damaged", damage: onFile("pages-1.img", func(path string) error { return os.Truncate(path, 4096) })},
	"pages missing":       {says: "damaged", damage: onFile("pages-1.img", os.Remove)},
	"captured by a new CRIU": {says: "is older than at capture", decision: true, damage: func(t *testing.T, n *harness.Node, e checkpoint.Entry) {
		t.Helper()
		forge(t, n, e, func(c *checkpoint.Checkpoint) { c.Host.CRIU = 990000 })
	}},
	"a CPU feature missing": {says: "this CPU lacks", decision: true, damage: func(t *testing.T, n *harness.Node, e checkpoint.Entry) {
		t.Helper()
		forge(t, n, e, func(c *checkpoint.Checkpoint) { c.Host.CPUFeatures = append(c.Host.CPUFeatures, "zzz") })
	}},
	"an open file changed": {
		says: "changed since the capture", late: true, args: []string{"/bin/probe", "-file", "/bound/counter"}, opts: bindDirectory,
		prepare: func(t *testing.T, c *container) {
			t.Helper()
			if err := os.WriteFile(filepath.Join(boundDir(c.ID()), "counter"), make([]byte, 100), 0o600); err != nil {
				t.Fatal(err)
			}
		},
	},
	"no space for the files": {says: "space", prepare: func(t *testing.T, c *container) { t.Helper(); tinyLayer(t, c) }},
}

// TestFallback: the task boots within the same start, and of the restore there is no trace.
func TestFallback(t *testing.T) {
	t.Parallel()
	n := newNode(t, harness.Options{})
	for name, f := range failures {
		t.Run(name, func(t *testing.T) {
			w := f.want(t)
			_, e, before := f.capture(t, n, w)
			c := newContainer(t, n, w)
			f.prepareFor(t, c)
			if err := c.create(w); err != nil {
				t.Fatal(err)
			}
			ns := netns(t, c.pid())
			attachVeth(t, c.pid(), "10.98.0.2/24")
			if f.meddle != nil {
				f.meddle(t, c)
			}
			if err := c.task.Start(testContext(t)); err != nil {
				t.Fatal(err)
			}
			f.recorded(t, c, e)
			s := c.probe()
			if s.Token == before.Token {
				t.Error("it was restored")
			}
			c.inOwnCgroup()
			if got := netns(t, c.pid()); got != ns {
				t.Errorf("the network namespace %d, that Create told, became %d", ns, got)
			}
			if out := c.mustExec("ip", "addr"); !strings.Contains(out, "10.98.0.2/24") || !strings.Contains(out, "LOOPBACK,UP") {
				t.Errorf("the task's addresses: %s", out)
			}
			if out, code := c.exec("ls", "/marker"); code == 0 {
				t.Errorf("the checkpoint's files are there: %s", out)
			}
			execs(c)
			c.kill(unix.SIGTERM)
			if got := c.wait(); got != 7 {
				t.Errorf("exit status %d", got)
			}
			c.delete()
			noNetNS(t, ns)
		})
	}
}

// TestDemandedFails: where a restore was asked for, the start fails, says why,
// and leaves nothing.
func TestDemandedFails(t *testing.T) {
	t.Parallel()
	n := newNode(t, harness.Options{})
	for name, f := range failures {
		for _, how := range []string{"restore", "checkpoint"} {
			t.Run(name+"/"+how, func(t *testing.T) {
				// When everything that the test itself made is gone, too.
				t.Cleanup(func() { nothingLeft(t, n) })
				w := f.want(t)
				a, e, _ := f.capture(t, n, w)
				a.kill(unix.SIGKILL)
				a.wait()
				a.delete()
				value := "Required"
				if how == "checkpoint" {
					value = "demanded"
				}
				w = w.annotate(how, value)
				c := newContainer(t, n, w)
				f.prepareFor(t, c)
				err := c.create(w)
				if err == nil {
					if f.meddle != nil {
						f.meddle(t, c)
					} else if !f.late {
						t.Error("Create succeeded")
					}
					if err = c.task.Start(testContext(t)); err == nil {
						t.Fatal("the task started")
					}
					if got := c.wait(); got != 137 {
						t.Errorf("exit status %d", got)
					}
					c.delete()
				}
				if !strings.Contains(err.Error(), f.says) || !strings.Contains(err.Error(), "asked for") {
					t.Errorf("error %v, want one that says %q", err, f.says)
				}
				if _, err := c.Task(testContext(t), nil); !errdefs.IsNotFound(err) {
					t.Errorf("the task after the failure: %v", err)
				}
				if f.prepare == nil {
					nothingLeft(t, n)
				}
				if st, err := openStore(t, n).Resolve(e.Digest); err == nil && st.State.Failures > 1 {
					t.Errorf("state %+v", st.State)
				}
			})
		}
	}
}

func (f failure) want(t *testing.T) want {
	t.Helper()
	w := probeOf()
	if f.args != nil {
		w.args = f.args
	}
	if f.opts != nil {
		w.opts = f.opts(t)
	}
	return w
}

// capture runs and captures the container, and does the damage.
func (f failure) capture(t *testing.T, n *harness.Node, w want) (*container, checkpoint.Entry, probeState) {
	t.Helper()
	c := start(t, n, w)
	before := c.probe()
	c.mustExec("sh", "-c", "head -c 1000000 /dev/urandom >/marker")
	e := c.mustCapture(capture.Request{Name: "demanded", Replace: true})
	if f.damage != nil {
		f.damage(t, n, e)
	}
	return c, e, before
}

func (f failure) prepareFor(t *testing.T, c *container) {
	t.Helper()
	if f.prepare != nil {
		f.prepare(t, c)
	}
}

// recorded checks that record, log and state tell of the failure.
func (f failure) recorded(t *testing.T, c *container, e checkpoint.Entry) {
	t.Helper()
	if f.decision {
		c.mustBooted(f.says)
		return
	}
	r := c.record()
	if r.Outcome != checkpoint.Boot || r.Decision.Action != checkpoint.Restore || !strings.Contains(r.Fallback, f.says) {
		t.Errorf("record %+v, want a fallback that says %q", r, f.says)
	}
	st, err := openStore(t, c.node).Resolve(e.Digest)
	if err != nil || st.State.Failures != 1 || !strings.Contains(st.State.LastFailure, f.says) {
		t.Errorf("state %+v, %v, want one failure that says %q", st.State, err, f.says)
	}
	log, err := c.node.Log()
	if err != nil {
		t.Fatal(err)
	}
	told := slices.ContainsFunc(strings.Split(log, "\n"), func(line string) bool {
		return strings.Contains(line, "level=warning") && strings.Contains(line, "restore failed") && strings.Contains(line, "id="+c.ID()+" ")
	})
	if !told {
		t.Error("the log does not tell of the fallback")
	}
}

// TestQuarantine: a checkpoint that fails again and again is no longer tried,
// until an operator clears it.
func TestQuarantine(t *testing.T) {
	t.Parallel()
	n := newNode(t, harness.Options{})
	a := start(t, n, probeOf())
	before := a.probe()
	e := a.mustCapture(capture.Request{Name: "frail"})
	for range checkpoint.QuarantineAfter {
		c := create(t, n, probeOf())
		killHolder(t, c)
		if err := c.task.Start(testContext(t)); err != nil {
			t.Fatal(err)
		}
		if r := c.record(); r.Fallback == "" {
			t.Fatalf("record %+v", r)
		}
	}
	start(t, n, probeOf()).mustBooted("quarantined")
	// By name it can still be had.
	named := start(t, n, probeOf().annotate("checkpoint", "frail"))
	named.mustRestored(e)
	for range checkpoint.QuarantineAfter {
		if _, err := openStore(t, n).RecordFailure(e.Digest, "the test says so"); err != nil {
			t.Fatal(err)
		}
	}
	start(t, n, probeOf()).mustBooted("the test says so")
	if _, err := n.Snapctl(testContext(t), "clear", "frail"); err != nil {
		t.Fatal(err)
	}
	c := start(t, n, probeOf())
	c.mustRestored(e)
	c.goesOn(before)
}

// onFile returns a damage to one file of the images.
func onFile(name string, do func(path string) error) func(*testing.T, *harness.Node, checkpoint.Entry) {
	return func(t *testing.T, _ *harness.Node, e checkpoint.Entry) {
		t.Helper()
		if err := do(filepath.Join(e.Dir, "images", name)); err != nil {
			t.Fatal(err)
		}
	}
}

// flipBit changes one bit in the middle of a file.
func flipBit(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	data[len(data)/2] ^= 0x10
	return os.WriteFile(path, data, 0o600)
}

// forge registers a copy of a checkpoint with other metadata, in its place.
func forge(t *testing.T, n *harness.Node, e checkpoint.Entry, change func(*checkpoint.Checkpoint)) {
	t.Helper()
	s := openStore(t, n)
	d, err := s.NewDraft()
	if err != nil {
		t.Fatal(err)
	}
	defer d.Discard()
	for dst, part := range map[string]string{d.ImagesDir(): "images", d.DiffDir(): "diff"} {
		out, err := exec.CommandContext(t.Context(), "cp", "-a", filepath.Join(e.Dir, part)+"/.", dst).CombinedOutput()
		if err != nil {
			t.Fatalf("copy %s: %v: %s", part, err, out)
		}
	}
	meta := e.Checkpoint
	change(&meta)
	if err := s.Remove(e.Digest); err != nil {
		t.Fatal(err)
	}
	forged, err := d.Commit(testContext(t), meta, store.CommitOptions{Name: e.Name})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Remove(forged.Digest); err != nil && !errors.Is(err, checkpoint.ErrNotFound) {
			t.Error(err)
		}
	})
}

// boundDir is the directory that bindDirectory gives to a container.
func boundDir(id string) string { return filepath.Join(os.TempDir(), "snap-bound-"+id) }

// bindDirectory binds a directory of the container's own to /bound.
func bindDirectory(t *testing.T) []oci.SpecOpts {
	t.Helper()
	return []oci.SpecOpts{func(_ context.Context, _ oci.Client, c *containers.Container, s *specs.Spec) error {
		dir := boundDir(c.ID)
		t.Cleanup(func() {
			if err := os.RemoveAll(dir); err != nil {
				t.Error(err)
			}
		})
		s.Mounts = append(s.Mounts, specs.Mount{Type: "bind", Source: dir, Destination: "/bound", Options: []string{"rbind", "rw"}})
		return os.MkdirAll(dir, 0o700)
	}}
}

// tinyLayer puts the container's writable layer on a file system with little space.
func tinyLayer(t *testing.T, c *container) {
	t.Helper()
	ctx := testContext(t)
	mounts, err := c.node.Client().SnapshotService("overlayfs").Mounts(ctx, c.ID())
	if err != nil {
		t.Fatal(err)
	}
	upper := ""
	for _, m := range mounts {
		for _, o := range m.Options {
			if dir, ok := strings.CutPrefix(o, "upperdir="); ok {
				upper = dir
			}
		}
	}
	if upper == "" {
		t.Fatalf("no upperdir in %v", mounts)
	}
	dir := filepath.Dir(upper)
	tinyMount(t, dir, "size=256k")
	for _, name := range []string{"fs", "work"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// parent is the parent's pid of a process: the shim's for an init.
func parent(t *testing.T, pid int) int {
	t.Helper()
	p, err := harness.ReadProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	return p.PPID
}

// criu returns the pid of the CRIU that works on the container, 0 if there is none.
// A restore's is in the container's cgroup, and so to be told from those of
// others in the same shim; a dump's is not.
func (c *container) criu(restores bool) int {
	init, err := harness.ReadProcess(c.pid())
	if err != nil {
		return 0
	}
	all, err := harness.Processes()
	if err != nil {
		return 0
	}
	for _, p := range all {
		// CRIU changes its command line.
		isCRIU := func(arg string) bool { return arg == "swrk" || strings.HasPrefix(arg, "criu:") }
		if p.PPID != init.PPID || p.State == "Z" || !slices.ContainsFunc(p.Args, isCRIU) {
			continue
		}
		// init, its sibling, looks like it until the restore is complete.
		if p.PID != init.PID && (!restores || slices.Equal(p.Cgroups, init.Cgroups)) {
			return p.PID
		}
	}
	return 0
}

// killHolder kills the CRIU that holds the task until Start.
func killHolder(t *testing.T, c *container) {
	t.Helper()
	pid := c.criu(true)
	if pid == 0 {
		t.Fatalf("%s: the shim runs no CRIU", c.ID())
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// wrapCRIU puts a few lines of shell before the node's CRIU, until the test ends.
func wrapCRIU(t *testing.T, n *harness.Node, lines string) {
	t.Helper()
	real, err := os.Readlink(filepath.Join(n.Bin, "criu"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "criu")
	script := fmt.Sprintf("#!/bin/sh\n%s\nexec %s \"$@\"\n", lines, real)
	if err := os.WriteFile(file, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	replaceCRIU(t, n, file)
}

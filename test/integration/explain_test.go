package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/oci"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/oci/spec"
	"github.com/containerd-snap/snap/shim/capture"
	"github.com/containerd-snap/snap/test/harness"
)

// foretold is what a dry run says.
type foretold struct {
	Decision    checkpoint.Decision
	Error       string
	Fingerprint checkpoint.Fingerprint
}

func dryRun(t *testing.T, n *harness.Node, args ...string) foretold {
	t.Helper()
	var out struct{ DryRun foretold }
	o, err := n.Snapctl(testContext(t), append([]string{"explain", "--dry-run", "--json"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(o.Stdout), &out); err != nil {
		t.Fatalf("%v: %s", err, o.Stdout)
	}
	return out.DryRun
}

// agrees checks that a start was what the dry run said.
func (f foretold) agrees(t *testing.T, r checkpoint.Start) {
	t.Helper()
	if !reflect.DeepEqual(f.Decision, r.Decision) {
		t.Errorf("the dry run decided %+v, the start %+v", f.Decision, r.Decision)
	}
	// A start that is decided without it has no fingerprint.
	if r.Fingerprint != nil && !maps.Equal(f.Fingerprint, r.Fingerprint) {
		t.Errorf("the fingerprints differ in %v", spec.Differences(f.Fingerprint, r.Fingerprint))
	}
}

// TestDryRunOfImage compares what snapctl says of `ctr run` with what ctr run does.
func TestDryRunOfImage(t *testing.T) {
	t.Parallel()
	n := newNode(t, harness.Options{})
	probe := []string{"/bin/probe", "-listen", ""}
	// run does it, with ctr's flags of these names and then the program's arguments.
	run := func(t *testing.T, id string, flags []string, args ...string) (checkpoint.Start, error) {
		t.Helper()
		ctr := append([]string{"run", "--detach", "--null-io", "--runtime", harness.Runtime}, flags...)
		_, err := n.Ctr(testContext(t), append(append(ctr, probeImage, id), args...)...)
		t.Cleanup(func() { removeByCtr(t, n, id) })
		r, rerr := openStore(t, n).Start(n.Namespace, id)
		if rerr != nil {
			t.Fatal(err, rerr)
		}
		return r, err
	}
	before := dryRun(t, n, probeImage, "--", "/bin/probe", "-listen", "")
	first, err := run(t, "first", nil, probe...)
	if err != nil {
		t.Fatal(err)
	}
	before.agrees(t, first)
	e, err := capture.Call(testContext(t), first.Address, capture.Request{ID: "first", Name: "first-ready"})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		flags    []string
		args     []string
		restores bool
		fails    string
	}{
		"same":              {args: probe, restores: true},
		"image's own":       {},
		"other-arguments":   {args: []string{"/bin/probe", "-memory", "1"}},
		"env":               {flags: []string{"--env", "A=b"}, args: probe},
		"user":              {flags: []string{"--user", "1000:1000"}, args: []string{"/bin/probe", "-listen", "", "-file", "/dev/shm/c"}},
		"cwd":               {flags: []string{"--cwd", "/tmp"}, args: probe},
		"read-only":         {flags: []string{"--read-only"}, args: []string{"/bin/probe", "-listen", "", "-file", "/dev/shm/c"}},
		"net-host":          {flags: []string{"--net-host"}, args: probe},
		"mount":             {flags: []string{"--mount", "type=tmpfs,src=tmpfs,dst=/mnt,options=rw:nosuid"}, args: probe},
		"identity":          {flags: []string{"--annotation", spec.Prefix + "identity=/run/me"}, args: probe},
		"never":             {flags: []string{"--annotation", spec.Prefix + "restore=Never"}, args: probe},
		"by-name":           {flags: []string{"--annotation", spec.Prefix + "checkpoint=first-ready"}, args: probe, restores: true},
		"required, unfit":   {flags: []string{"--annotation", spec.Prefix + "restore=Required", "--env", "A=b"}, args: probe, fails: "no registered checkpoint"},
		"no such name":      {flags: []string{"--annotation", spec.Prefix + "checkpoint=absent"}, args: probe, fails: `"absent": checkpoint not found`},
		"an unknown policy": {flags: []string{"--annotation", spec.Prefix + "restore=Always"}, args: probe, fails: "IfPresent, Required, Never"},
	} {
		t.Run(name, func(t *testing.T) {
			told := dryRun(t, n, append(append(append([]string{}, c.flags...), probeImage, "--"), c.args...)...)
			r, err := run(t, "c-"+strings.NewReplacer(" ", "", ",", "", "'", "").Replace(name), c.flags, c.args...)
			if c.fails != "" {
				if err == nil || !strings.Contains(told.Error, c.fails) || !strings.Contains(err.Error(), c.fails) {
					t.Errorf("the dry run says %q, the start %v; want %q", told.Error, err, c.fails)
				}
				return
			}
			if err != nil || told.Error != "" {
				t.Fatalf("the start: %v; the dry run: %s", err, told.Error)
			}
			told.agrees(t, r)
			if restored := r.Outcome == checkpoint.Restore; restored != c.restores || restored && r.Decision.Digest != e.Digest {
				t.Errorf("outcome %s from %s", r.Outcome, r.Decision.Digest)
			}
		})
	}
	noneBorrowed(t, n)
}

// noneBorrowed checks that dry runs left no snapshot and no lease.
func noneBorrowed(t *testing.T, n *harness.Node) {
	t.Helper()
	ctx := testContext(t)
	err := n.Client().SnapshotService("").Walk(ctx, func(_ context.Context, s snapshots.Info) error {
		if strings.Contains(s.Name, "dry-run") {
			t.Errorf("snapshot %s is left", s.Name)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if leases, err := n.Client().LeasesService().List(ctx); err != nil || len(leases) > 0 {
		t.Errorf("leases %v are left, %v", leases, err)
	}
}

func removeByCtr(t *testing.T, n *harness.Node, id string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), deadline)
	defer cancel()
	c, err := n.Client().LoadContainer(ctx, id)
	if err != nil {
		return // it was never made
	}
	if task, err := c.Task(ctx, nil); err == nil {
		if _, err := task.Delete(ctx, client.WithProcessKill); err != nil {
			t.Error(err)
		}
	}
	if err := c.Delete(ctx, client.WithSnapshotCleanup); err != nil {
		t.Error(err)
	}
}

// TestDryRunOfContainer compares what snapctl says of a container without a task with what
// its start does.
func TestDryRunOfContainer(t *testing.T) {
	t.Parallel()
	n := newNode(t, harness.Options{})
	a := newContainer(t, n, probeOf())
	told := dryRun(t, n, a.ID())
	if err := a.Create(probeOf()); err != nil {
		t.Fatal(err)
	}
	if err := a.Task.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	told.agrees(t, a.Record())
	a.Probe()
	if out, err := n.Snapctl(testContext(t), "explain", "--dry-run", a.ID()); err == nil || !strings.Contains(out.Stderr, "has a task already") {
		t.Errorf("of a container that runs: %v, %s", err, out.Stderr)
	}
	e := a.MustCapture(capture.Request{Name: "told"})
	for name, w := range map[string]want{
		"same":     probeOf(sameAs(a)),
		"terminal": {Image: probeImage, Args: []string{"/bin/probe"}, Terminal: true, Opts: []oci.SpecOpts{sameAs(a)}},
		"sandbox":  sandbox(probeOf(sameAs(a))),
		"pids":     probeOf(sameAs(a), hostPIDs),
	} {
		t.Run(name, func(t *testing.T) {
			c := newContainer(t, n, w)
			told := dryRun(t, n, c.ID())
			if err := c.Create(w); err != nil {
				t.Fatal(err)
			}
			if err := c.Task.Start(testContext(t)); err != nil {
				t.Fatal(err)
			}
			told.agrees(t, c.Record())
			if name == "same" {
				c.MustRestored(e)
			} else {
				c.MustBooted("")
			}
		})
	}
	// The layer of one that ran is not fresh.
	a.Kill(9)
	a.Wait()
	a.DeleteTask()
	told = dryRun(t, n, a.ID())
	if err := a.Create(probeOf()); err != nil {
		t.Fatal(err)
	}
	if err := a.Task.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	told.agrees(t, a.Record())
	if !strings.Contains(told.Decision.Reason, "writable layer") {
		t.Errorf("decision %+v", told.Decision)
	}
}

// TestExplainImage looks for what happened to containers of an image.
func TestExplainImage(t *testing.T) {
	t.Parallel()
	n := newNode(t, harness.Options{})
	a := start(t, n, probeOf())
	a.Probe()
	e := a.MustCapture(capture.Request{Name: "of-image"})
	b := start(t, n, probeOf())
	b.MustRestored(e)
	var x struct {
		Registered []struct {
			Name  string
			Needs []spec.Difference
		}
		Starts []checkpoint.Start
		Next   foretold
	}
	snapctl(t, n, &x, "explain", probeImage)
	if len(x.Registered) != 1 || x.Registered[0].Name != "of-image" || len(x.Registered[0].Needs) != 1 || x.Registered[0].Needs[0].Field != "env.SNAP_TEST" {
		t.Errorf("registered %+v, want one that needs SNAP_TEST", x.Registered)
	}
	if len(x.Starts) != 2 || x.Starts[0].Container != b.ID() || x.Starts[0].Outcome != checkpoint.Restore || x.Starts[1].Outcome != checkpoint.Boot {
		t.Errorf("starts %+v", x.Starts)
	}
	if x.Next.Decision.Action != checkpoint.Boot || x.Next.Fingerprint == nil {
		t.Errorf("next %+v", x.Next)
	}
	snapctl(t, n, &x, "explain", busyboxImage)
	if len(x.Registered) != 0 || len(x.Starts) != 0 {
		t.Errorf("of another image: %+v", x)
	}
	noneBorrowed(t, n)
}

// sameAs gives a subtest's container the environment of another test's.
func sameAs(c *container) oci.SpecOpts {
	return oci.WithEnv([]string{"SNAP_TEST=" + c.T.Name()})
}

// TestDryRunOfResume: a dry run knows a container's own resume points, and explain what was
// captured of it without hands.
func TestDryRunOfResume(t *testing.T) {
	t.Parallel()
	n := newNode(t, harness.Options{})
	config := fmt.Appendf(nil, "root = %q\n[capture]\nmin_interval = \"1s\"\n", n.StoreRoot)
	if err := os.WriteFile(n.SnapConfig(), config, 0o600); err != nil {
		t.Fatal(err)
	}
	c := start(t, n, probeOf().Annotate("capture", "Every=1s"))
	c.Probe()
	eventually(t, func() error {
		all, err := openStore(t, n).List()
		if err == nil && len(all) == 0 {
			err = errors.New("no resume point yet")
		}
		return err
	})
	var x struct {
		Start    checkpoint.Start
		Captures []struct{ Kind checkpoint.Kind }
	}
	snapctl(t, n, &x, "explain", c.ID())
	if x.Start.Capture == nil || !strings.HasPrefix(x.Start.Capture.Mode, "Every") || len(x.Captures) == 0 || x.Captures[0].Kind != checkpoint.ResumePoint {
		t.Errorf("explained %+v, %+v", x.Start.Capture, x.Captures)
	}
	c.Kill(unix.SIGKILL)
	c.Wait()
	c.DeleteTask()
	told := dryRun(t, n, c.ID())
	if told.Decision.Action != checkpoint.Restore {
		t.Errorf("decision %+v", told.Decision)
	}
	if err := c.Create(probeOf()); err != nil {
		t.Fatal(err)
	}
	if err := c.Task.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	told.agrees(t, c.Record())
}

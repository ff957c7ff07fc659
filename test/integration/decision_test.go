package integration

import (
	"context"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/shim/capture"
	"github.com/containerd-snap/snap/test/harness"
)

// TestDecision starts containers that differ from the captured one, or say what they want.
func TestDecision(t *testing.T) {
	t.Parallel()
	a := start(t, shared, probeOf())
	before := a.Probe()
	older := a.MustCapture(capture.Request{Name: "decision-older"})
	newer := a.MustCapture(capture.Request{Name: "decision-newer"})
	// Subtests have names of their own; their containers must look like a.
	same := func(_ context.Context, _ oci.Client, _ *containers.Container, s *specs.Spec) error {
		return replaceEnv(s, "SNAP_TEST="+a.T.Name())
	}
	for name, c := range map[string]struct {
		want want
		// restored is the checkpoint, boots the reason for none, and misses what
		// snapctl must say of the nearest one.
		restored checkpoint.Entry
		boots    string
		misses   string
	}{
		"the newest":                  {want: probeOf(same), restored: newer},
		"by name":                     {want: probeOf(same).Annotate("checkpoint", "decision-older"), restored: older},
		"by digest":                   {want: probeOf(same).Annotate("checkpoint", older.Digest), restored: older},
		"required":                    {want: probeOf(same).Annotate("restore", "Required"), restored: newer},
		"if present":                  {want: probeOf(same).Annotate("restore", "IfPresent"), restored: newer},
		"never":                       {want: probeOf(same).Annotate("restore", "Never"), boots: "Never"},
		"another environment":         {want: probeOf(same, oci.WithEnv([]string{"SNAP_OTHER=1"})), boots: "no registered checkpoint", misses: "SNAP_OTHER"},
		"another command":             {want: want{Image: probeImage, Args: []string{"/bin/probe", "-memory", "1"}, Opts: []oci.SpecOpts{same}}, boots: "no registered checkpoint", misses: "arg"},
		"more capabilities":           {want: probeOf(same, oci.WithAddedCapabilities([]string{"CAP_SYS_PTRACE"})), boots: "no registered checkpoint", misses: "capabilit"},
		"a sandbox":                   {want: sandbox(probeOf(same)), boots: "sandbox"},
		"addressed to another":        {want: probeOf(same).Annotate("restore.other", "Never"), restored: newer},
		"another host name and limit": {want: probeOf(same, oci.WithHostname("h"), oci.WithMemoryLimit(100<<20)), restored: newer},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := start(t, shared, c.want)
			if c.boots != "" {
				k.MustBooted(c.boots)
				if s := k.Probe(); s.Token == before.Token {
					t.Error("it was restored")
				}
				if c.misses != "" && !strings.Contains(nearest(k), c.misses) {
					t.Errorf("the nearest checkpoint differs in %q, want %q", nearest(k), c.misses)
				}
				return
			}
			k.MustRestored(c.restored)
			k.GoesOn(before)
		})
	}
}

// nearest is what the checkpoints that come nearest differ in, as snapctl tells.
func nearest(c *container) string {
	c.T.Helper()
	var explained struct {
		NearMisses []struct{ Differs []string }
	}
	snapctl(c.T, c.Node, &explained, "explain", c.ID())
	var all []string
	for _, m := range explained.NearMisses {
		all = append(all, m.Differs...)
	}
	return strings.Join(all, "; ")
}

// replaceEnv sets a variable in place of one that is there.
func replaceEnv(s *specs.Spec, variable string) error {
	name, _, _ := strings.Cut(variable, "=")
	for i, v := range s.Process.Env {
		if strings.HasPrefix(v, name+"=") {
			s.Process.Env[i] = variable
		}
	}
	return nil
}

// sandbox makes a container look like a pod's.
func sandbox(w want) want {
	w.Annotations = map[string]string{"io.kubernetes.cri.container-type": "sandbox"}
	return w
}

// TestRefused starts containers that must not start, and looks for what they left.
func TestRefused(t *testing.T) {
	t.Parallel()
	n := newNode(t, harness.Options{})
	for name, c := range map[string]struct {
		want  want
		is    func(error) bool
		class string
		says  string
	}{
		"required, and there is none": {probeOf().Annotate("restore", "Required"), errdefs.IsFailedPrecondition, "FailedPrecondition", "no registered checkpoint"},
		"an unknown name":             {probeOf().Annotate("checkpoint", "nobody"), errdefs.IsNotFound, "NotFound", "nobody"},
		"an unknown key":              {probeOf().Annotate("restroe", "Never"), errdefs.IsInvalidArgument, "InvalidArgument", "restroe"},
		"an unknown value":            {probeOf().Annotate("restore", "Always"), errdefs.IsInvalidArgument, "InvalidArgument", "Required"},
	} {
		t.Run(name, func(t *testing.T) {
			k := newContainer(t, n, c.want)
			err := k.Create(c.want)
			if !c.is(err) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want %s that says %q", err, c.class, c.says)
			}
			if _, err := k.Container.Task(testContext(t), nil); !errdefs.IsNotFound(err) {
				t.Errorf("the task after the failure: %v", err)
			}
			nothingLeft(t, n)
		})
	}
}

// TestUsedLayer: a container whose files were written already cannot take a
// checkpoint's.
func TestUsedLayer(t *testing.T) {
	t.Parallel()
	a := start(t, shared, probeOf())
	before := a.Probe()
	a.MustCapture(capture.Request{})
	a.Kill(unix.SIGKILL)
	a.Wait()
	a.DeleteTask()
	if err := a.Create(probeOf()); err != nil {
		t.Fatal(err)
	}
	if err := a.Task.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	a.MustBooted("writable layer")
	if s := a.Probe(); s.Token == before.Token {
		t.Error("it was restored")
	}
}

package cri

import (
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/store"
)

// taken waits until the shim has registered a checkpoint of the container by
// itself, and returns its digest. It is removed with the test.
func (c *container) taken() (digest string) {
	c.t.Helper()
	eventually(c.t, func() error {
		got := c.record().Capture
		if got == nil || got.Digest == "" {
			return fmt.Errorf("no capture yet: %+v", got)
		}
		digest = got.Digest
		return nil
	})
	s, err := store.Open(node.StoreRoot)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		all, err := s.List()
		if err != nil {
			c.t.Fatal(err)
		}
		for _, e := range all {
			if e.Checkpoint.Source.Container != c.id {
				continue
			}
			if err := s.Remove(e.Digest); err != nil && !errors.Is(err, checkpoint.ErrNotFound) {
				c.t.Error(err)
			}
		}
	})
	return digest
}

// TestCaptureOnReady: a pod's annotation makes the first container with its fingerprint a
// template, from which those of other pods start.
func TestCaptureOnReady(t *testing.T) {
	t.Parallel()
	ready := annotate(map[string]string{"capture": "OnReady", "ready.web": "tcp://127.0.0.1:7000"})
	p := runPod(t, snap, ready)
	a := p.startProbe("web")
	a.booted("no registered checkpoint")
	before := a.probe()
	digest := a.taken()
	a.goesOn(before)
	q := runPod(t, snap, ready)
	b := q.startProbe("web")
	if r := b.record(); r.Outcome != checkpoint.Restore || r.Decision.Digest != digest {
		t.Errorf("decision %+v, want a restore from %s", r.Decision, digest)
	}
	if s := b.goesOn(probeState{Token: before.Token}); s.Hostname != q.config.GetHostname() {
		t.Errorf("the clone's hostname is %q", s.Hostname)
	}
}

// TestResumeInPod: a container goes on from its last resume point when it comes back
// after a kill: in its pod, and in the pod that takes the place of that one under the
// same name. Nobody else starts from it.
func TestResumeInPod(t *testing.T) {
	t.Parallel()
	named := func(name string) func(*runtimeapi.PodSandboxConfig) {
		return func(c *runtimeapi.PodSandboxConfig) {
			annotate(map[string]string{"capture": "Every=1s"})(c)
			c.Metadata.Name = name
		}
	}
	p := runPod(t, eager, named("job-0"))
	a := p.startProbe("web")
	before := a.probe()
	a.taken()
	if err := unix.Kill(a.pid(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	a.ended()
	again := p.startProbe("web")
	again.resumed(before)
	now := again.goesOn(before)
	again.taken()

	other := runPod(t, eager, named("job-1")).startProbe("web")
	if s := other.probe(); s.Token == before.Token {
		t.Error("another pod's container goes on from a resume point that is not its own")
	}
	if err := p.remove(); err != nil {
		t.Fatal(err)
	}
	p.id = ""
	back := runPod(t, eager, named("job-0")).startProbe("web")
	back.resumed(before)
	back.goesOn(probeState{Token: now.Token})
}

// resumed checks that the container was restored from a resume point.
func (c *container) resumed(before probeState) {
	c.t.Helper()
	r := c.record()
	if r.Outcome != checkpoint.Restore {
		c.t.Fatalf("outcome %s, decision %+v, fallback %q", r.Outcome, r.Decision, r.Fallback)
	}
	s, err := store.Open(node.StoreRoot)
	if err != nil {
		c.t.Fatal(err)
	}
	e, err := s.Resolve(r.Decision.Digest)
	// A newer one may have taken its place by now.
	if err == nil && e.Checkpoint.Kind != checkpoint.ResumePoint {
		c.t.Errorf("it was restored from a %s", e.Checkpoint.Kind)
	}
	if got := c.probe(); got.Token != before.Token {
		c.t.Errorf("it is not the life of before: %+v", got)
	}
}

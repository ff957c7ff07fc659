// Package dryrun says how a container would start that has not started yet. It asks
// containerd for what a start would be given, and decides as the shim does, by
// package decide.
//
// For an image it makes the spec that `ctr run` makes. What that reads from the image's
// files it reads from a snapshot that is removed at once. It has no state and no locks.
package dryrun

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/decide"
	"github.com/containerd-snap/snap/oci/overlay"
	"github.com/containerd-snap/snap/oci/spec"
)

// Runtime is the name under which containers ask for the runtime.
const Runtime = "io.containerd.snap.v2"

// Plan is how a container would start.
type Plan struct {
	Namespace string `json:"namespace"`
	// Container is the id of an existing container; empty for one of an image.
	Container string `json:"container,omitempty"`
	Image     string `json:"image,omitempty"`
	// ImageDigest is what the image's name stands for now.
	ImageDigest string `json:"imageDigest,omitempty"`
	// Args are those of the process.
	Args []string `json:"args"`
	// Runtime is the name in the container's record, if it is not ours: its start
	// would not come to us.
	Runtime  string              `json:"runtime,omitempty"`
	Decision checkpoint.Decision `json:"decision"`
	// Memory is how the memory of a restore would come back, and MemoryReason why so.
	Memory       checkpoint.MemoryMode `json:"memory,omitempty"`
	MemoryReason string                `json:"memoryReason,omitempty"`
	// Error is why the start would fail; empty if it would not.
	Error string `json:"error,omitempty"`
	// Fingerprint is the container's.
	Fingerprint checkpoint.Fingerprint `json:"fingerprint"`
}

// Node is where a container would start.
type Node struct {
	decide.Node
	// Defaults are the settings that hold where annotations are silent: those of
	// the host's configuration. What a runtime handler's options override is not seen.
	Defaults spec.Settings
}

// decide completes a plan: c is a container's record, whose snapshot exists.
func (p *Plan) decide(ctx context.Context, c *client.Client, node Node, record containers.Container, s *specs.Spec) error {
	snapshots := c.SnapshotService(record.Snapshotter)
	rootfs := ""
	if record.SnapshotKey != "" {
		st, err := snapshots.Stat(ctx, record.SnapshotKey)
		if err != nil {
			return fmt.Errorf("ask containerd for snapshot %s: %w", record.SnapshotKey, err)
		}
		rootfs = st.Parent
	}
	p.Args = s.Process.Args
	settings, bad := spec.ParseSettings(s.Annotations, node.Defaults)
	if bad == nil {
		// Where its directory comes from is no part of the fingerprint.
		bad = settings.MountIdentity(s, "")
	}
	p.Fingerprint = spec.Fingerprint(s, rootfs)
	if bad != nil {
		p.Error = bad.Error()
		return nil //nolint:nilerr // how the start would fail is what was asked
	}
	answer, err := node.Decide(ctx, decide.Container{
		OCI: s, Settings: settings,
		// Without an id only a resume-key of the user's owns anything.
		Owner:  spec.Owner(p.Namespace, p.Container, settings.ResumeKey, s),
		Rootfs: func(context.Context) (string, error) { return rootfs, nil },
		Fresh: func() (bool, error) {
			mounts, err := snapshots.Mounts(ctx, record.SnapshotKey)
			if err != nil || len(mounts) == 0 {
				return false, err
			}
			last := mounts[len(mounts)-1]
			return overlay.Fresh(overlay.UpperDir(last.Type, last.Options))
		},
	})
	p.Decision, p.Memory, p.MemoryReason = answer.Decision, answer.Memory, answer.MemoryReason
	switch d := answer.Decision; {
	case err != nil:
		p.Error = err.Error()
	case d.Demanded && d.Action == checkpoint.Boot:
		p.Error = "a restore was asked for: " + d.Reason
	}
	return nil
}

// Container says how an existing container's task would start. Its error wraps
// errdefs.ErrNotFound if containerd does not know it, and ErrRuns if it has a task.
func Container(ctx context.Context, c *client.Client, node Node, namespace, id string) (Plan, error) {
	found, err := c.LoadContainer(ctx, id)
	if err != nil {
		return Plan{}, fmt.Errorf("find container %s in namespace %s: %w", id, namespace, err)
	}
	record, err := found.Info(ctx)
	if err != nil {
		return Plan{}, err
	}
	p := Plan{Namespace: namespace, Container: id, Image: record.Image}
	if record.Runtime.Name != Runtime {
		p.Runtime = record.Runtime.Name
	}
	if _, err := found.Task(ctx, nil); !errdefs.IsNotFound(err) {
		return p, errors.Join(ErrRuns, err)
	}
	if record.Image != "" {
		if i, err := c.ImageService().Get(ctx, record.Image); err == nil {
			p.ImageDigest = i.Target.Digest.String()
		}
	}
	s, err := spec.Decode(record.Spec.GetValue(), "/")
	if err != nil {
		return p, fmt.Errorf("read the spec of container %s: %w", id, err)
	}
	err = p.decide(ctx, c, node, record, s)
	return p, err
}

// ErrRuns is returned by Container where nothing is to come: the task exists.
var ErrRuns = errors.New("the container has a task already")

// Image says how `ctr run` of an image would start. Its error wraps
// errdefs.ErrNotFound if containerd does not know the image.
func Image(ctx context.Context, c *client.Client, node Node, namespace string, w Wanted) (_ Plan, retErr error) {
	image, err := c.GetImage(ctx, w.Image)
	if err != nil {
		return Plan{}, fmt.Errorf("find image %s in namespace %s: %w", w.Image, namespace, err)
	}
	p := Plan{Namespace: namespace, Image: image.Name(), ImageDigest: image.Target().Digest.String()}
	record, remove, err := borrow(ctx, c, image)
	if err != nil {
		return p, err
	}
	defer func() { retErr = errors.Join(retErr, remove()) }()
	s, err := w.spec(ctx, c, image, &record)
	if err != nil {
		return p, fmt.Errorf("make the spec of %s %s: %w", w.Image, strings.Join(w.Args, " "), err)
	}
	err = p.decide(ctx, c, node, record, s)
	return p, err
}

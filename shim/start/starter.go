// Package start brings a task to life: it decides whether the container is
// restored or booted, does it, and boots where a restore failed, leaving no
// trace of the attempt. It also takes checkpoints, because what is captured
// and what can be restored must agree.
//
// It is what lifecycle knows as Init. Its locks: an Init's mu guards which of
// its halves (held restore or live container) is valid; it is not held across
// calls to libcontainer or CRIU.
package start

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/store"
	"github.com/containerd-snap/snap/config"
	"github.com/containerd-snap/snap/oci/spec"
	"github.com/containerd-snap/snap/shim/cgroup"
	"github.com/containerd-snap/snap/shim/identity"
	"github.com/containerd-snap/snap/shim/libct"
	"github.com/containerd-snap/snap/shim/lifecycle"
	"github.com/containerd-snap/snap/shim/options"
	"github.com/containerd-snap/snap/shim/pager"
	"github.com/containerd-snap/snap/shim/rootfs"
	"github.com/containerd-snap/snap/shim/stdio"
)

// Identifier says what a container is made of.
type Identifier interface {
	Lookup(ctx context.Context, id string) (identity.Identity, error)
}

// Starter starts the containers of one shim.
type Starter struct {
	// Namespace is containerd's.
	Namespace string
	// Address is the shim's own ttrpc address, for the record of a start.
	Address string
	// Images says what a container is made of.
	Images Identifier
	// Store is the node's registry of checkpoints; nil if it could not be opened.
	// StoreErr is why it must not be used but for the records of starts: containers
	// then boot.
	Store    *store.Store
	StoreErr error
	// Shim says when the shim was started; nil if that is not known.
	Shim *Birth
	// OnPhase, if set, is called at the end of each phase of a start.
	OnPhase func(id, phase string)
	// Announce, if set, publishes an event about a container that is none of its task's life.
	Announce func(topic, id string, fields map[string]string)
	// Config is the host's configuration; options of a container may override it.
	Config config.Config
}

// Request is what Create asks for.
type Request struct {
	ID, Bundle string
	Stdio      lifecycle.Stdio
	Mounts     []mount.Mount
	Options    options.Options
	// Checkpoint is a directory of CRIU images to restore from, as the caller
	// of Create may give one; empty for the store's choice.
	Checkpoint string
}

// work is where CRIU's logs of a container go, below its bundle.
const work = "criu"

// Launch prepares the task up to the point where only Start is missing. After
// an error nothing of it is left.
func (s *Starter) Launch(ctx context.Context, req Request, oom func()) (_ *Init, retErr error) {
	i := &Init{
		starter: s,
		req:     req,
		oom:     oom,
		exit:    make(chan lifecycle.Exit, 1),
		rec:     newRecorder(s, req),
		rootfs:  rootfs.New(req.Bundle, req.Mounts),
	}
	defer func() {
		if retErr != nil {
			i.rec.failed(ctx, retErr)
			if i.plan != nil {
				i.plan.letGo()
			}
			if i.io != nil {
				retErr = errors.Join(retErr, i.io.Close())
			}
		}
	}()
	cgroup.Hasten()
	var err error
	if i.oci, err = spec.Load(req.Bundle); err != nil {
		return nil, invalid(err)
	}
	i.rec.named(spec.Name(i.oci))
	i.oci.Process.Terminal = req.Stdio.Terminal
	if i.config, err = s.Config.With("the runtime options", req.Options.Overlay); err != nil {
		return nil, invalid(err)
	}
	if i.settings, err = spec.ParseSettings(i.oci.Annotations, i.config.Settings()); err != nil {
		return nil, invalid(err)
	}
	if allowed, why := bound(i.settings.Capture, i.config.Capture); why != "" {
		i.rec.bounded(ctx, i.settings.Capture, why)
		i.settings.Capture = allowed
	}
	std := stdio.Config(req.Stdio)
	if err := std.Validate(); err != nil {
		return nil, invalid(err)
	}
	if err := req.Options.Write(req.Bundle); err != nil {
		return nil, err
	}
	if i.identity, err = newIdentityDir(req.Bundle, i.settings, i.oci); err != nil {
		return nil, invalid(err)
	}
	i.rec.phase("spec")
	// A shim that was killed may have left the layer in the middle of a restore.
	if err := i.rootfs.Recover(); err != nil {
		return nil, err
	}
	if err := i.decide(ctx, nil); err != nil {
		return nil, err
	}
	if i.io, err = stdio.Open(req.ID, s.Namespace, std, req.Options.IOUID, req.Options.IOGID); err != nil {
		return nil, err
	}
	if err := i.watchOutput(); err != nil {
		return nil, invalid(err)
	}
	if err := i.io.Start(ctx); err != nil {
		return nil, streamsError(err)
	}
	i.rec.phase("stdio")
	if err := i.prepare(ctx); err != nil {
		return nil, err
	}
	return i, nil
}

// prepare holds a restore, or boots. Where a resume point cannot be held, the one
// before it is the container's last good one.
func (i *Init) prepare(ctx context.Context) error {
	failed := map[string]string{}
	for i.plan.decision.Action == checkpoint.Restore {
		p := i.plan
		err := i.hold(ctx)
		if err == nil {
			return nil
		}
		i.countFailure(ctx, err)
		another := p.resumes() && i.settings.Checkpoint == ""
		if p.decision.Demanded && !another {
			return fmt.Errorf("restore from checkpoint %s, which was asked for: %w", p.ref, err)
		}
		if rerr := i.fellBack(ctx, err); rerr != nil {
			return rerr
		}
		if !another {
			break
		}
		failed[p.entry.Digest] = "it could not be restored just now: " + err.Error()
		if derr := i.decide(ctx, failed); derr != nil {
			return fmt.Errorf("%w (after resume point %s: %w)", derr, p.ref, err)
		}
	}
	return i.boot(ctx)
}

// decide makes the plan. failed says of what this start tried already why it was of no use.
func (i *Init) decide(ctx context.Context, failed map[string]string) error {
	p, err := i.starter.plan(ctx, i, failed)
	if err != nil {
		return err
	}
	i.plan = p
	i.rec.decided(p)
	i.rec.phase("decide")
	return nil
}

func invalid(err error) error {
	if errdefs.IsInvalidArgument(err) {
		return err
	}
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %w", err, errdefs.ErrNotFound)
	}
	return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
}

// streamsError gives an error of opening streams its class: a FIFO, file or
// logging program that is not there is the request's mistake.
func streamsError(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	return err
}

// runtime is where libcontainer keeps the state of this namespace's containers.
func runtime(o options.Options, namespace string) libct.Runtime {
	return libct.Runtime{Root: filepath.Join(o.Root, namespace)}
}

// containerSpec describes the container to libct.
func containerSpec(id, bundle string, oci *specs.Spec, o options.Options) libct.Spec {
	return libct.Spec{
		ID:            id,
		Bundle:        bundle,
		OCI:           oci,
		SystemdCgroup: o.SystemdCgroup,
		NoPivotRoot:   o.NoPivotRoot,
		NoNewKeyring:  o.NoNewKeyring,
	}
}

// boot mounts the root file system and makes an init that waits for Start.
func (i *Init) boot(ctx context.Context) (retErr error) {
	if err := i.identity.write(i.oci, ""); err != nil {
		return err
	}
	if err := i.rootfs.Mount(); err != nil {
		return err
	}
	i.rec.phase("rootfs")
	defer func() {
		if retErr != nil {
			retErr = errors.Join(retErr, i.rootfs.Unmount())
		}
	}()
	cs := containerSpec(i.req.ID, i.req.Bundle, i.oci, i.req.Options)
	if i.ns != nil {
		i.ns.Join(&cs)
	}
	c, p, err := runtime(i.req.Options, i.starter.Namespace).Boot(ctx, cs, i.files())
	if err != nil {
		return err
	}
	i.rec.phase("create")
	if err := i.adopt(ctx, c, p); err != nil {
		return errors.Join(err, discard(c, p))
	}
	return nil
}

// Remove removes what a container left of whose shim nothing is known.
func Remove(namespace, id, bundle string, o options.Options) error {
	oci, err := spec.Load(bundle)
	if err != nil {
		return err
	}
	if err := runtime(o, namespace).Remove(containerSpec(id, bundle, oci, o)); err != nil {
		// What may live on has need of its pager, which ends by itself.
		return err
	}
	return pager.Remove(filepath.Join(bundle, work))
}

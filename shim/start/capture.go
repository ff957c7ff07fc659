package start

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/criu"
	"github.com/containerd-snap/snap/checkpoint/store"
	"github.com/containerd-snap/snap/oci/spec"
	"github.com/containerd-snap/snap/shim/libct"
)

// Capture says what kind of checkpoint to take for the store.
type Capture struct {
	// Kind is the checkpoint's; empty for a template.
	Kind checkpoint.Kind
	// Name is what the checkpoint is to be called; empty for none.
	Name string
	// Replace takes the name from the checkpoint that has it.
	Replace bool
	// Stop ends the task when the checkpoint is registered.
	Stop bool
}

// Capture takes a checkpoint of the running container and registers it. The
// task goes on, unless told to stop, also if the capture fails. wasPaused says
// that it is frozen already and shall stay so.
//
// Precondition: no other operation runs on the task.
func (i *Init) Capture(ctx context.Context, req Capture, wasPaused bool) (checkpoint.Entry, error) {
	t, err := i.take(ctx, req, wasPaused)
	if err != nil {
		return checkpoint.Entry{}, err
	}
	defer t.Discard(ctx)
	e, err := t.Register(ctx)
	if err != nil || !req.Stop {
		return e, err
	}
	// Peers of saved connections shall wait, not hear of the end: the network stays
	// silent until the task is deleted.
	i.mu.Lock()
	i.silenced, t.frozen.connections = t.frozen.connections, nil
	i.mu.Unlock()
	if err := errors.Join(i.silenced.detach(), t.frozen.l.c.KillAll()); err != nil {
		return e, fmt.Errorf("end the captured task: %w", err)
	}
	return e, nil
}

// Take is the part of Capture for which the task stands still. What it returns is to
// be registered, and in any case to be discarded after that.
func (i *Init) Take(ctx context.Context, kind checkpoint.Kind, wasPaused bool) (*Taken, error) {
	return i.take(ctx, Capture{Kind: kind}, wasPaused)
}

// Taken is a checkpoint that is not registered yet. The task does not wait for that.
type Taken struct {
	init   *Init
	draft  *store.Draft
	meta   checkpoint.Checkpoint
	opts   store.CommitOptions
	frozen *frozen
	// begin is when the capture was asked for.
	begin time.Time
}

// Register makes it a registered one.
func (t *Taken) Register(ctx context.Context) (e checkpoint.Entry, err error) {
	defer func() { t.init.captured(ctx, t.meta.Kind, e, err, time.Since(t.begin)) }()
	if t.meta.Held, err = t.init.heldFiles(t.draft.ImagesDir()); err != nil {
		return e, err
	}
	if err := criu.DropEmptyTmpfs(t.draft.ImagesDir()); err != nil {
		log.G(ctx).WithError(err).Warn("restores of the checkpoint will take longer than they could")
	}
	if t.meta.Memory, t.meta.Files, err = t.init.shapeMemory(ctx, t.draft.ImagesDir(), t.frozen.code); err != nil {
		return e, err
	}
	if e, err = t.draft.Commit(ctx, t.meta, t.opts); err != nil {
		return e, notFound(err)
	}
	return e, nil
}

// Discard lets go of what was not registered, and lets the task go on.
func (t *Taken) Discard(ctx context.Context) {
	t.frozen.thaw(ctx)
	t.frozen.forget()
	if err := t.draft.Discard(); err != nil {
		log.G(ctx).WithError(err).Error("discard the unfinished checkpoint")
	}
}

// take dumps the task. After an error, and without req.Stop in any case, the task goes on.
func (i *Init) take(ctx context.Context, req Capture, wasPaused bool) (_ *Taken, retErr error) {
	begin := time.Now()
	defer func() {
		if retErr != nil {
			i.captured(ctx, req.Kind, checkpoint.Entry{}, retErr, time.Since(begin))
		}
	}()
	l, err := i.mustLive()
	if err != nil {
		return nil, err
	}
	if err := i.capturable(req); err != nil {
		return nil, err
	}
	// CRIU cannot dump memory of which pages are still to come.
	if err := i.pager.Wait(ctx); err != nil {
		return nil, err
	}
	st := i.starter.Store
	id, err := i.starter.Images.Lookup(ctx, i.req.ID)
	if err != nil {
		return nil, fmt.Errorf("learn what the container is made of: %w", err)
	}
	if id.Rootfs == "" {
		return nil, fmt.Errorf("the container was not made from an image, so that nothing tells which containers the checkpoint would fit: %w", errdefs.ErrFailedPrecondition)
	}
	facts, err := i.starter.hostFacts(ctx)
	if err != nil {
		return nil, err
	}
	if facts.CRIU == 0 {
		_, err := criu.Find()
		return nil, fmt.Errorf("capture needs CRIU: %w", errors.Join(errdefs.ErrFailedPrecondition, err))
	}
	if _, err := st.Sweep(); err != nil {
		log.G(ctx).WithError(err).Warn("sweep the checkpoint store")
	}
	pids, err := l.c.PIDs()
	if err != nil {
		return nil, err
	}
	if err := i.room(pids); err != nil {
		return nil, err
	}
	draft, err := st.NewDraft()
	if err != nil {
		return nil, err
	}
	t := &Taken{
		init:   i,
		begin:  begin,
		draft:  draft,
		opts:   store.CommitOptions{Name: req.Name, Replace: req.Replace},
		frozen: &frozen{l: l, wasPaused: wasPaused},
		meta: checkpoint.Checkpoint{
			SchemaVersion: checkpoint.SchemaVersion,
			Kind:          cmp.Or(req.Kind, checkpoint.Template),
			Fingerprint:   spec.Fingerprint(i.oci, id.Rootfs),
			Host:          facts,
			Source: checkpoint.Source{
				Namespace:   i.starter.Namespace,
				Container:   i.req.ID,
				Image:       id.Image,
				ImageDigest: id.ImageDigest,
				Command:     strings.Join(i.oci.Process.Args, " "),
			},
		},
	}
	if t.meta.Kind == checkpoint.ResumePoint {
		t.meta.Owner = i.owner()
	}
	defer func() {
		if retErr != nil {
			t.Discard(ctx)
		}
	}()
	if err := i.dump(ctx, l, draft, t.frozen, &t.meta); err != nil {
		return nil, err
	}
	if !req.Stop {
		t.frozen.thaw(ctx)
	}
	return t, nil
}

// capturable refuses at the earliest moment what could never be restored.
func (i *Init) capturable(req Capture) error {
	st := i.starter.Store
	if err := i.starter.StoreErr; err != nil {
		return fmt.Errorf("the checkpoint store cannot be used: %w: %w", err, errdefs.ErrFailedPrecondition)
	}
	if spec.IsSandbox(i.oci) {
		return fmt.Errorf("container %s is a pod sandbox, which is never restored: %w", i.req.ID, errdefs.ErrFailedPrecondition)
	}
	if obstacles := spec.Obstacles(i.oci); len(obstacles) > 0 {
		return fmt.Errorf("container %s cannot be restored: %s: %w", i.req.ID, strings.Join(obstacles, "; "), errdefs.ErrFailedPrecondition)
	}
	if err := i.rootfs.Capturable(); err != nil {
		return fmt.Errorf("%w: %w", err, errdefs.ErrFailedPrecondition)
	}
	if req.Name == "" {
		return nil
	}
	err := st.CheckName(req.Name)
	if errors.Is(err, checkpoint.ErrExists) && req.Replace {
		return nil
	}
	return notFound(err)
}

// PlainCheckpoint is a checkpoint as the stock shim takes it: a directory of
// images that the caller names.
type PlainCheckpoint struct {
	// Images says where to and how; without Work, CRIU's logs go below the bundle.
	Images libct.Images
	// ParentPath is the directory of earlier images that these build upon.
	ParentPath string
	// Exit ends the task when the images are written.
	Exit bool
}

// Checkpoint writes images of the container's processes to a directory. It stands still
// meanwhile, as for Capture: only then can all of it be dumped (libct.Container.Dump).
// wasPaused says that it is frozen already and shall stay so.
//
// Precondition: no other operation runs on the task.
func (i *Init) Checkpoint(ctx context.Context, req PlainCheckpoint, wasPaused bool) error {
	l, err := i.mustLive()
	if err != nil {
		return err
	}
	if err := i.pager.Wait(ctx); err != nil {
		return err
	}
	if req.Images.Work == "" {
		req.Images.Work = i.workDir()
	}
	if err := os.MkdirAll(req.Images.Work, 0o700); err != nil {
		return err
	}
	cfg := legacyConfig(req.Images.TCPEstablished)
	cfg.External = i.external
	if err := cfg.Write(filepath.Join(i.req.Bundle, libct.CRIUConfigFile)); err != nil {
		return err
	}
	f := &frozen{l: l, wasPaused: wasPaused}
	defer f.thaw(ctx)
	if err := f.freeze(); err != nil {
		return err
	}
	err = runDump(ctx, l, libct.Dump{Images: req.Images, ParentPath: req.ParentPath, Exit: req.Exit})
	f.thaw(ctx)
	if err != nil {
		return explain(err, filepath.Join(req.Images.Work, "dump.log"))
	}
	return i.unmapImages(ctx, req.Images.Dir)
}

package start

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/criu"
	"github.com/containerd-snap/snap/checkpoint/mapped/rule"
	"github.com/containerd-snap/snap/checkpoint/store"
	"github.com/containerd-snap/snap/oci/spec"
	"github.com/containerd-snap/snap/shim/libct"
	"github.com/containerd-snap/snap/shim/rootfs"
)

// Capture says what kind of checkpoint to take for the store.
type Capture struct {
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
func (i *Init) Capture(ctx context.Context, req Capture, wasPaused bool) (entry checkpoint.Entry, retErr error) {
	begin := time.Now()
	defer func() { i.captured(ctx, checkpoint.Template, entry, retErr, time.Since(begin)) }()
	var none checkpoint.Entry
	l, err := i.mustLive()
	if err != nil {
		return none, err
	}
	if err := i.capturable(req); err != nil {
		return none, err
	}
	st := i.starter.Store
	id, err := i.starter.Images.Lookup(ctx, i.req.ID)
	if err != nil {
		return none, fmt.Errorf("learn what the container is made of: %w", err)
	}
	if id.Rootfs == "" {
		return none, fmt.Errorf("the container was not made from an image, so that nothing tells which containers the checkpoint would fit: %w", errdefs.ErrFailedPrecondition)
	}
	facts, err := i.starter.hostFacts(ctx)
	if err != nil {
		return none, err
	}
	if facts.CRIU == 0 {
		_, err := criu.Find()
		return none, fmt.Errorf("capture needs CRIU: %w", errors.Join(errdefs.ErrFailedPrecondition, err))
	}
	if _, err := st.Sweep(); err != nil {
		log.G(ctx).WithError(err).Warn("sweep the checkpoint store")
	}
	if err := i.room(l); err != nil {
		return none, err
	}
	draft, err := st.NewDraft()
	if err != nil {
		return none, err
	}
	defer func() {
		if err := draft.Discard(); err != nil {
			log.G(ctx).WithError(err).Error("discard the unfinished checkpoint")
		}
	}()
	frozen := &frozen{l: l, wasPaused: wasPaused}
	defer frozen.forget()
	defer frozen.thaw(ctx)
	meta := checkpoint.Checkpoint{
		SchemaVersion: checkpoint.SchemaVersion,
		Fingerprint:   spec.Fingerprint(i.oci, id.Rootfs),
		Host:          facts,
		Source: checkpoint.Source{
			Namespace:   i.starter.Namespace,
			Container:   i.req.ID,
			Image:       id.Image,
			ImageDigest: id.ImageDigest,
			Command:     strings.Join(i.oci.Process.Args, " "),
		},
	}
	if err := i.dump(ctx, l, draft, frozen, &meta); err != nil {
		return none, err
	}
	if !req.Stop {
		frozen.thaw(ctx)
	}
	if meta.Memory, err = i.shapeMemory(ctx, draft.ImagesDir(), frozen.code); err != nil {
		return none, err
	}
	e, err := draft.Commit(ctx, meta, store.CommitOptions{Name: req.Name, Replace: req.Replace})
	if err != nil {
		return none, notFound(err)
	}
	if !req.Stop {
		return e, nil
	}
	// Peers of saved connections shall wait, not hear of the end: the network stays
	// silent until the task is deleted.
	i.mu.Lock()
	i.silenced, frozen.connections = frozen.connections, nil
	i.mu.Unlock()
	if err := errors.Join(i.silenced.detach(), l.c.KillAll()); err != nil {
		return e, fmt.Errorf("end the captured task: %w", err)
	}
	return e, nil
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

// dump writes the images and the writable layer's difference while the task
// stands still, and says in meta what that cost.
func (i *Init) dump(ctx context.Context, l *live, draft *store.Draft, f *frozen, meta *checkpoint.Checkpoint) error {
	workDir := i.workDir()
	if err := os.MkdirAll(workDir, 0o700); err != nil {
		return err
	}
	if err := f.freeze(); err != nil {
		return err
	}
	var err error
	if f.connections, err = i.holdConnections(l); err != nil {
		return err
	}
	meta.Connections = f.connections.describe()
	cfg := criuConfig(len(meta.Connections) > 0)
	cfg.External = i.external
	if err := cfg.Write(filepath.Join(i.req.Bundle, libct.CRIUConfigFile)); err != nil {
		return err
	}
	begin := time.Now()
	meta.CreatedAt = begin.UTC()
	err = runDump(ctx, l, libct.Dump{
		Images: libct.Images{
			Dir:       draft.ImagesDir(),
			Work:      workDir,
			Terminal:  i.oci.Process.Terminal,
			FileLocks: true,
		},
		Detached:     true,
		SkipInFlight: true,
	})
	if err != nil {
		return explain(err, filepath.Join(workDir, "dump.log"))
	}
	dumped := time.Now()
	if err := i.rootfs.Capture(ctx, draft.DiffDir()); err != nil {
		return err
	}
	end := time.Now()
	if err := l.p.Signal(0); err != nil {
		return fmt.Errorf("the task ended during its capture: %w", errors.Join(errdefs.ErrFailedPrecondition, err))
	}
	if err := i.collectCode(l, f); err != nil {
		return err
	}
	meta.Timing = checkpoint.Timing{
		PauseMS: milliseconds(end.Sub(f.since)),
		DumpMS:  milliseconds(dumped.Sub(begin)),
		DiffMS:  milliseconds(end.Sub(dumped)),
	}
	meta.Diff.Format = rootfs.DiffFormat
	meta.Source.Processes, err = criu.Processes(draft.ImagesDir())
	return err
}

// dumpTimeout bounds a dump: longer than any disk needs for a large program.
const dumpTimeout = 10 * time.Minute

// runDump dumps even if the caller goes away meanwhile, and then says that he
// has: to kill CRIU in a dump can kill the program (package criu tells how often).
func runDump(ctx context.Context, l *live, d libct.Dump) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	own, cancel := context.WithTimeout(context.WithoutCancel(ctx), dumpTimeout)
	defer cancel()
	if err := l.c.Dump(own, d); err != nil {
		return err
	}
	return ctx.Err()
}

// frozen is a container that stands still for a capture.
type frozen struct {
	l         *live
	wasPaused bool
	// on says that this capture froze it; since tells when.
	on    bool
	since time.Time
	// connections are those of the task that are part of the checkpoint.
	connections *connections
	// code is what the processes run, as collected in the pause; nil if it was not.
	code *rule.Tree
}

// forget frees what was collected.
func (f *frozen) forget() {
	if f.code != nil {
		f.code.Close()
	}
}

func (f *frozen) freeze() error {
	f.since = time.Now()
	if !f.wasPaused {
		f.on = true
		if err := f.l.c.Freeze(); err != nil {
			return fmt.Errorf("freeze the task: %w", err)
		}
	}
	return nil
}

// thaw lets the task go on. It may be called twice. CRIU, if it was killed, may
// have left a task thawed that shall stay frozen.
func (f *frozen) thaw(ctx context.Context) {
	err := f.connections.letGo()
	f.connections = nil
	switch {
	case f.wasPaused:
		err = errors.Join(err, f.l.c.Freeze())
	case f.on:
		err = errors.Join(err, f.l.c.Thaw())
	}
	f.on = false
	if err != nil && f.l.p.Signal(unix.Signal(0)) == nil {
		log.G(ctx).WithError(err).Error("let the task go on after its capture")
	}
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

// Checkpoint writes images of the container's processes to a directory.
func (i *Init) Checkpoint(ctx context.Context, req PlainCheckpoint) error {
	l, err := i.mustLive()
	if err != nil {
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
	if err := runDump(ctx, l, libct.Dump{Images: req.Images, ParentPath: req.ParentPath, Exit: req.Exit}); err != nil {
		return explain(err, filepath.Join(req.Images.Work, "dump.log"))
	}
	return i.unmapImages(ctx, req.Images.Dir)
}

package start

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/criu"
	"github.com/containerd-snap/snap/checkpoint/mapped/rule"
	"github.com/containerd-snap/snap/checkpoint/store"
	"github.com/containerd-snap/snap/shim/libct"
	"github.com/containerd-snap/snap/shim/rootfs"
)

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
	pids, err := l.c.PIDs()
	if err != nil {
		return err
	}
	if err := noSemaphores(pids); err != nil {
		return err
	}
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
			CRIU:      meta.Host.CRIU,
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
	if err := i.nameDeleted(l, draft.ImagesDir(), draft.DiffDir()); err != nil {
		return err
	}
	end := time.Now()
	if err := l.p.Signal(0); err != nil {
		return fmt.Errorf("the task ended during its capture: %w", errors.Join(errdefs.ErrFailedPrecondition, err))
	}
	if err := i.collectCode(l, f, meta.Kind); err != nil {
		return err
	}
	meta.Timing = checkpoint.Timing{
		PauseMS: milliseconds(end.Sub(f.since)),
		DumpMS:  milliseconds(dumped.Sub(begin)),
		DiffMS:  milliseconds(end.Sub(dumped)),
	}
	meta.Diff.Format = rootfs.DiffFormat
	if meta.Source.Processes, err = criu.Processes(draft.ImagesDir()); err != nil {
		return err
	}
	meta.Addresses, err = ownAddresses(l, draft.ImagesDir())
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

// thaw lets the task go on. The first call counts: after it the task is its user's
// again. CRIU, if it was killed, may have left a task thawed that shall stay frozen.
func (f *frozen) thaw(ctx context.Context) {
	err := f.connections.letGo()
	f.connections = nil
	switch {
	case f.wasPaused:
		err = errors.Join(err, f.l.c.Freeze())
	case f.on:
		err = errors.Join(err, f.l.c.Thaw())
	}
	f.on, f.wasPaused = false, false
	if err != nil && f.l.p.Signal(unix.Signal(0)) == nil {
		log.G(ctx).WithError(err).Error("let the task go on after its capture")
	}
}

package start

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/shim/libct"
	"github.com/containerd-snap/snap/shim/lifecycle"
)

// Start releases a booted init, or finishes the restore; if that fails it boots
// within the same call, unless a restore was demanded.
func (i *Init) Start(ctx context.Context) error {
	// A start that has begun is finished even if its caller goes away: the
	// program may run already.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), restoreTimeout)
	defer cancel()
	i.mu.Lock()
	rs, l := i.held, i.live
	i.starting = rs != nil
	i.mu.Unlock()
	if rs == nil {
		if l == nil {
			return fmt.Errorf("its init was ended before it was started: %w", errdefs.ErrFailedPrecondition)
		}
		return i.release(ctx, l)
	}
	i.rec.resume()
	if err := i.restoreOrBoot(ctx, rs); err != nil {
		i.rec.failed(ctx, err)
		if !errors.Is(err, libct.ErrAborted) {
			// Who gave it up says by which signal it ended.
			i.end(rs, unix.SIGKILL)
		}
		return err
	}
	i.deliver(ctx)
	return nil
}

// restoreOrBoot finishes the restore, or boots if it fails and may fail.
func (i *Init) restoreOrBoot(ctx context.Context, rs *libct.Restore) error {
	err := i.finish(ctx, rs)
	if err == nil {
		i.rec.done(ctx, i.PID())
		return nil
	}
	i.mu.Lock()
	i.held = nil
	killed := i.killedL()
	i.mu.Unlock()
	if killed || errors.Is(err, libct.ErrAborted) {
		return fmt.Errorf("its init was killed before the restore was finished: %w: %w", errdefs.ErrFailedPrecondition, err)
	}
	i.countFailure(ctx, err)
	if i.plan.decision.Demanded {
		return fmt.Errorf("restore from checkpoint %s, which was asked for: %w", i.plan.ref, err)
	}
	if err = i.fellBack(ctx, err); err == nil {
		err = i.boot(ctx)
	}
	if err != nil {
		return fmt.Errorf("boot after the failed restore: %w", err)
	}
	return i.release(ctx, i.liveNow())
}

// end reports the end of an init that was never released.
func (i *Init) end(rs *libct.Restore, sig unix.Signal) {
	i.plan.letGo()
	i.ended(lifecycle.Exit{PID: rs.PID(), Status: exitSignalOffset + int(sig), At: time.Now()})
}

const exitSignalOffset = 128

// release lets a booted program run.
func (i *Init) release(ctx context.Context, l *live) error {
	i.rec.resume()
	if err := l.c.Release(); err != nil {
		i.rec.failed(ctx, err)
		return errors.Join(err, l.c.KillAll())
	}
	i.rec.phase("release")
	i.rec.done(ctx, l.p.PID())
	return nil
}

// finish lets the held restore go on. After an error nothing of the attempt is
// left but the namespaces, which the boot that follows joins.
func (i *Init) finish(ctx context.Context, rs *libct.Restore) error {
	guard, err := i.plan.settleNetwork()
	err = errors.Join(err, i.identity.write(i.oci, i.plan.source()))
	defer guard.Close()
	if err != nil {
		ok, aerr := rs.Abort()
		if !ok {
			return libct.ErrAborted
		}
		return errors.Join(err, aerr, i.undoRootfs())
	}
	i.pager.Attend()
	c, p, err := rs.Finish(ctx)
	if errors.Is(err, libct.ErrAborted) {
		// Who gave it up lets go of what it had.
		return err
	}
	guard.Close()
	unlocked := i.plan.lock.Release()
	if err == nil {
		i.rec.phase("restore")
		i.reapply(ctx, c)
		if err = errors.Join(unlocked, i.plan.sockets.Settle()); err == nil {
			err = i.afterRestore(ctx, c, p)
		}
		if err == nil {
			err = i.pager.Err()
		}
		if err == nil {
			err = i.adopt(ctx, c, p)
		}
		if err != nil {
			err = errors.Join(err, discard(c, p))
		}
	}
	if err != nil {
		return errors.Join(i.diagnose(err), i.undoRootfs())
	}
	i.plan.letGo()
	if i.plan.resumes() {
		// From here on the program writes to the layer as it was set back.
		if err := i.rootfs.Keep(); err != nil {
			log.G(ctx).WithError(err).WithField("id", i.req.ID).Error("end the way back of the writable layer")
		}
	}
	if i.plan.entry != nil {
		if err := i.starter.Store.RecordSuccess(i.plan.entry.Digest, time.Now()); err != nil {
			log.G(ctx).WithError(err).Warn("count the restore")
		}
	}
	return nil
}

// undoRootfs takes back what a restore did to the root file system.
func (i *Init) undoRootfs() error {
	err := i.rootfs.Unmount()
	if err == nil && i.plan.diff != "" {
		err = i.undoDiff()
	}
	return err
}

// applyDiff gives the container the writable layer of the checkpoint: a template's
// to a layer that holds nothing yet, a resume point's in place of what was written since.
func (i *Init) applyDiff(ctx context.Context) error {
	if i.plan.resumes() {
		return i.rootfs.SetBack(ctx, i.plan.diff)
	}
	return i.rootfs.Apply(ctx, i.plan.diff)
}

// undoDiff takes applyDiff back. The root file system must not be mounted.
func (i *Init) undoDiff() error {
	if i.plan.resumes() {
		return i.rootfs.Revert()
	}
	return i.rootfs.Reset()
}

// discard removes a container that could not be adopted.
func discard(c *libct.Container, p *libct.Process) error {
	err := errors.Join(p.Signal(unix.SIGKILL), c.KillAll())
	if errdefs.IsNotFound(err) {
		err = nil
	}
	_, werr := p.Wait()
	return errors.Join(err, werr, c.Destroy())
}

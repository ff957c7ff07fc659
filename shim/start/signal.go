package start

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"golang.org/x/sys/unix"
)

// Signal sends sig to init. While a restore is held no signal can reach the
// program: one that would end an init that waits for Start ends the restore,
// others are lost, as they are on such an init. While Start is under way signals
// wait for the program, but for SIGKILL, which ends what is there.
func (i *Init) Signal(ctx context.Context, sig unix.Signal) error {
	i.mu.Lock()
	l, rs := i.live, i.held
	waits := l == nil && i.starting
	if waits {
		i.queued = append(i.queued, sig)
	}
	abort := l == nil && !waits && rs != nil && fatal(sig) && !i.aborting
	i.aborting = i.aborting || abort
	i.mu.Unlock()
	switch {
	case l != nil:
		return l.signal(sig)
	case waits && sig == unix.SIGKILL && rs != nil:
		return rs.Kill()
	case waits:
		return nil
	case rs == nil:
		return fmt.Errorf("process already finished: %w", errdefs.ErrNotFound)
	case !abort:
		return nil
	}
	ok, err := rs.Abort()
	i.mu.Lock()
	i.aborting = false
	if ok {
		i.held = nil
	}
	i.mu.Unlock()
	if !ok {
		// Start was faster: it is under way now, or has ended.
		return i.Signal(ctx, sig)
	}
	err = errors.Join(err, i.undoRootfs())
	i.end(rs, sig)
	return err
}

// fatal says whether sig would end an init that waits for Start.
func fatal(sig unix.Signal) bool {
	switch sig {
	case unix.SIGKILL, unix.SIGTERM, unix.SIGINT, unix.SIGQUIT, unix.SIGHUP:
		return true
	}
	return false
}

func (l *live) signal(sig unix.Signal) error {
	err := l.p.Signal(sig)
	if sig != unix.SIGKILL {
		return err
	}
	// libcontainer thaws a frozen container, and ends the processes of one
	// without a pid namespace of its own; but it can take a program that is just
	// being executed for a dead one, so that it is not enough.
	return errors.Join(err, l.c.KillAll())
}

// killedL says that a SIGKILL came during Start. Precondition: mu is held.
func (i *Init) killedL() bool { return slices.Contains(i.queued, unix.SIGKILL) }

// deliver ends Start: it sends what signals came during it.
func (i *Init) deliver(ctx context.Context) {
	i.mu.Lock()
	queued, l := i.queued, i.live
	i.queued, i.starting = nil, false
	i.mu.Unlock()
	for _, sig := range queued {
		if err := l.signal(sig); err != nil && !errdefs.IsNotFound(err) {
			log.G(ctx).WithError(err).WithField("id", i.req.ID).Warnf("deliver signal %d, which came during the start", sig)
		}
	}
}

// SignalAll sends sig to all processes of the container.
func (i *Init) SignalAll(ctx context.Context, sig unix.Signal) error {
	l := i.liveNow()
	if l == nil || sig == unix.SIGKILL {
		return i.Signal(ctx, sig)
	}
	pids, err := l.c.PIDs()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

// KillRest ends what init may have left behind in a pid namespace that is not
// the container's own; in its own, the kernel has done so.
func (i *Init) KillRest(context.Context) error {
	if l := i.liveNow(); l != nil && !l.c.PrivatePIDNS() {
		return l.c.KillAll()
	}
	return nil
}

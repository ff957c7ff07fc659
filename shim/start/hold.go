package start

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/containerd/log"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/criu"
	"github.com/containerd-snap/snap/checkpoint/tally"
	"github.com/containerd-snap/snap/shim/libct"
)

// hold prepares a restore up to the point where the init exists. After an
// error nothing of the attempt is left.
func (i *Init) hold(ctx context.Context) (retErr error) {
	p := i.plan
	var undo []func() error
	defer func() {
		if retErr == nil {
			return
		}
		errs := []error{retErr}
		for _, f := range slices.Backward(undo) {
			errs = append(errs, f())
		}
		retErr = errors.Join(errs...)
	}()
	if err := p.verify(ctx, i.starter.Store); err != nil {
		return err
	}
	i.rec.phase("verify")
	if p.diff != "" {
		if err := i.applyDiff(ctx); err != nil {
			return err
		}
		undo = append(undo, i.undoDiff)
	}
	undo = append(undo, i.rootfs.Unmount)
	if err := i.rootfs.Mount(); err != nil {
		return err
	}
	i.rec.phase("rootfs")
	undo = append(undo, i.closeMemory)
	if err := i.prepareMemory(ctx); err != nil {
		return err
	}
	// A boot gives a terminal the size that the spec says; the images hold the captured one's.
	if size := i.oci.Process.ConsoleSize; size != nil {
		if err := i.Resize(uint32(size.Width), uint32(size.Height)); err != nil {
			return err
		}
	}
	cs := containerSpec(i.req.ID, i.req.Bundle, i.oci, i.req.Options)
	if p.detached {
		ns, err := libct.NewNamespaces(i.oci)
		if err != nil {
			return err
		}
		i.ns = ns
		ns.Join(&cs)
		undo = append(undo, func() error { i.ns = nil; return ns.Close() })
		// CRIU gives the namespace the names that the images hold, even if it did
		// not make it: a pod's would be renamed.
		if err := p.stage(i.starter); err != nil {
			return err
		}
		if err := criu.Stage(p.staged.ImagesDir(), p.images, ns.Hostname, ns.Domainname); err != nil {
			return err
		}
		p.images = p.staged.ImagesDir()
		if err := criu.MendTimers(p.images, p.age()); err != nil {
			return err
		}
		p.network, p.sharesNetwork = networkOf(cs), cs.NetNS == ""
		if err := p.lendSockets(cs); err != nil {
			return err
		}
	}
	if err := p.lockNetwork(cs); err != nil {
		return err
	}
	if err := p.criu.Write(filepath.Join(i.req.Bundle, libct.CRIUConfigFile)); err != nil {
		return err
	}
	i.rec.phase("namespaces")
	i.awaitPager(ctx)
	if err := os.MkdirAll(i.workDir(), 0o700); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, restoreTimeout)
	defer cancel()
	facts, err := i.starter.hostFacts(ctx)
	if err != nil {
		return err
	}
	alone, err := i.interfaces()
	if err != nil {
		return err
	}
	rs, err := runtime(i.req.Options, i.starter.Namespace).Restore(ctx, cs, libct.Images{
		Dir:            p.images,
		Work:           i.workDir(),
		Plain:          p.legacy,
		TCPEstablished: p.legacy,
		Terminal:       i.oci.Process.Terminal,
		FileLocks:      true,
		Lazy:           i.pager != nil,
		CRIU:           facts.CRIU,
		Inherit:        append(i.pageFiles(), p.sockets.Files()...),
	}, i.files())
	if err != nil {
		return i.diagnose(err)
	}
	i.rec.phase("hold")
	// What cannot be looked at any more is taken for changed.
	n, err := i.interfaces()
	i.hooked = err != nil || n != alone
	i.mu.Lock()
	i.held = rs
	i.mu.Unlock()
	return nil
}

// restoreTimeout bounds a restore: longer than any disk needs for a large
// program, short enough that a fallback still comes while somebody waits.
const restoreTimeout = 2 * time.Minute

// workDir is where CRIU works and writes its logs. A restore whose memory comes lazily has
// one for itself, because CRIU and its pager meet there.
func (i *Init) workDir() string {
	if i.plan.memory != checkpoint.MemoryLazy && i.req.Options.CRIUWorkPath != "" {
		return i.req.Options.CRIUWorkPath
	}
	return filepath.Join(i.req.Bundle, work)
}

// interfaces counts those of the network that was made for the restore, if hooks of the container
// may change it: those that run while it is prepared.
func (i *Init) interfaces() (int, error) {
	h := i.oci.Hooks
	if h == nil || len(h.Prestart)+len(h.CreateRuntime) == 0 { //nolint:staticcheck // runc still runs prestart hooks
		return 0, nil
	}
	return i.ns.Interfaces()
}

// fellBack notes that a restore failed, and prepares for what comes instead.
func (i *Init) fellBack(ctx context.Context, cause error) error {
	i.rec.fellBack(ctx, cause)
	i.plan.letGo()
	if err := i.closeMemory(); err != nil {
		return err
	}
	if i.ns != nil && i.hooked {
		// Those hooks run again for the boot, and would find what they made; the poststop ones, which
		// have run, may count on the network's end, as that of nerdctl does.
		if err := i.ns.Close(); err != nil {
			return err
		}
		i.ns = nil
	}
	if !i.req.Stdio.Terminal {
		return nil
	}
	// The restore may have sent its terminal before it failed; it must not be
	// taken for the boot's.
	return i.io.RenewConsole()
}

// countFailure counts a failed restore against its checkpoint.
func (i *Init) countFailure(ctx context.Context, cause error) {
	if i.plan.entry == nil || errors.Is(cause, errUnsuited) {
		return
	}
	st, err := i.starter.Store.RecordFailure(i.plan.entry.Digest, cause.Error())
	switch {
	case err != nil:
		log.G(ctx).WithError(err).Warn("count the failed restore")
	case i.plan.resumes() && errors.Is(cause, checkpoint.ErrCorrupt):
		// It will never be right again, and must not be kept in place of one that is.
		if err := i.starter.Store.Quarantine(i.plan.entry.Digest, cause.Error()); err != nil {
			log.G(ctx).WithError(err).Warn("quarantine the damaged resume point")
		}
	case st.Quarantined():
		if st.Failures == checkpoint.QuarantineAfter {
			i.starter.count(ctx, true, func(t *tally.Tally) { t.Quarantined++ })
		}
		log.G(ctx).WithField("checkpoint", i.plan.ref).WithField("reason", cause.Error()).
			Warnf("checkpoint is quarantined after %d failed restores", st.Failures)
	}
}

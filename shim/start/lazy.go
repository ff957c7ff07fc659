package start

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/criu"
	"github.com/containerd-snap/snap/shim/libct"
	"github.com/containerd-snap/snap/shim/pager"
)

// startPager starts the pager of a lazy restore. Where there cannot be one, for want of
// userfaultfd for example, the memory is copied, which gives the program the same.
func (i *Init) startPager(ctx context.Context) {
	bin, err := criu.Find()
	if err == nil {
		err = usesMusl(i.plan.images)
	}
	if err == nil {
		err = os.MkdirAll(i.workDir(), 0o700)
	}
	if err == nil {
		i.pager, err = pager.Start(ctx, pager.Config{CRIU: bin.Path, Images: i.plan.images, Work: i.workDir(), Died: i.pagerDied})
	}
	if err != nil {
		i.copyInstead(ctx, err)
		return
	}
	done := libct.Claim(i.pager.PID())
	go func(p *pager.Pager) {
		defer done()
		_ = p.Wait(context.Background()) // pagerDied hears of its death
	}(i.pager)
}

// usesMusl refuses programs whose free(3) ends CRIU's pager: musl advises the kernel to take
// pages back and unmaps them at once, and if that is done before the pager has taken note
// of the advice, it fails ("Failed to unregister", criu/uffd.c).
func usesMusl(images string) error {
	files, err := os.ReadFile(filepath.Join(images, "files.img"))
	if err == nil && bytes.Contains(files, []byte("/ld-musl-")) {
		err = errors.New("CRIU's pager does not bear how musl frees memory")
	}
	return err
}

// awaitPager waits until the restore can begin.
func (i *Init) awaitPager(ctx context.Context) {
	if i.pager == nil {
		return
	}
	if err := i.pager.Ready(ctx); err != nil {
		i.pager = nil
		i.copyInstead(ctx, err)
	}
	i.rec.phase("pager")
}

func (i *Init) copyInstead(ctx context.Context, cause error) {
	log.G(ctx).WithError(cause).WithField("id", i.req.ID).Warn("memory=lazy cannot be had: the memory is copied")
	i.plan.memory, i.plan.memoryReason = checkpoint.MemoryCopy, "memory=lazy was asked for, and cannot be had: "+cause.Error()
	i.rec.decided(i.plan)
}

// pagerDied ends the task, whose memory will never be whole: the kernel would let it read
// zeroes for what is missing.
func (i *Init) pagerDied(cause error) {
	ctx := context.Background()
	i.mu.Lock()
	l, rs := i.live, i.held
	i.mu.Unlock()
	logger := log.G(ctx).WithField("id", i.req.ID)
	switch {
	case l != nil && l.p.Signal(0) == nil:
		logger.WithError(cause).Error("the task is killed: its memory is not whole")
		if err := l.signal(unix.SIGKILL); err != nil {
			logger.WithError(err).Error("kill the task whose memory is not whole")
		}
		i.rec.amend(ctx, func(st *checkpoint.Start) { st.MemoryReason += "; the task was killed: " + cause.Error() })
	case l == nil && rs != nil:
		// If it is not the restore's failure that ended the pager, the restore fails now.
		logger.WithError(cause).Warn("the restore is given up: it has no pager")
		if err := rs.Kill(); err != nil {
			logger.WithError(err).Error("end the restore that has no pager")
		}
	}
}

package start

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/criu"
	"github.com/containerd-snap/snap/checkpoint/decide"
	"github.com/containerd-snap/snap/checkpoint/match"
	"github.com/containerd-snap/snap/checkpoint/store"
	"github.com/containerd-snap/snap/oci/spec"
	"github.com/containerd-snap/snap/shim/netlock"
	"github.com/containerd-snap/snap/shim/rebind"
)

// plan is a decision with what its execution needs.
type plan struct {
	decision    checkpoint.Decision
	fingerprint checkpoint.Fingerprint
	// entry is the registered checkpoint to restore from; nil for a boot and
	// for a directory of images.
	entry *checkpoint.Entry
	// ref names the checkpoint for people.
	ref string
	// images is the directory of CRIU images, diff that of the writable
	// layer's difference, if the checkpoint brings one.
	images, diff string
	// detached: the images leave out the network namespace, and the task is
	// restored into namespaces made before it.
	detached bool
	// legacy: the images are as runc writes them.
	legacy bool
	// memory is how the memory comes back, memoryReason why so.
	memory       checkpoint.MemoryMode
	memoryReason string
	// criu is the configuration for the restore.
	criu criu.Config
	// staged holds the images as this restore needs them; nil for none. It is a
	// draft that is never committed: on the store's file system, and swept if
	// the shim dies.
	staged *store.Draft
	// network is the path of the network namespace that the task is restored in;
	// others may use it, too, if it was not made for the task.
	network       string
	sharesNetwork bool
	// connections are those to restore; lock then silences the network until they are.
	connections []checkpoint.Connection
	lock        *netlock.Lock
	// sockets are those that wait for the container's address; nil for none.
	sockets *rebind.Sockets
	// release ends the hold on the entry; nil if there is none.
	release func()
	// gone makes letGo work once: a start that fails and the signal that made
	// it fail both let go.
	gone sync.Once
}

// letGo ends what is held for the restore: it has succeeded or failed.
func (p *plan) letGo() {
	p.gone.Do(func() {
		// It ends with us in any case.
		_ = p.lock.Release()
		p.sockets.Close()
		if p.staged != nil {
			// What remains after an error is swept with the next capture.
			_ = p.staged.Discard()
		}
		if p.release != nil {
			p.release()
		}
	})
}

// source is the digest of the checkpoint, or the directory of images.
func (p *plan) source() string {
	if p.entry != nil {
		return p.entry.Digest
	}
	return p.images
}

// resumes says that the task goes on from a resume point of its own.
func (p *plan) resumes() bool {
	return p.entry != nil && p.entry.Checkpoint.Kind == checkpoint.ResumePoint
}

// age is how long ago the checkpoint was taken; 0 where nobody knows.
func (p *plan) age() time.Duration {
	if p.entry == nil {
		return 0
	}
	return max(0, time.Since(p.entry.Checkpoint.CreatedAt))
}

// verify checks the images before CRIU sees them. Of a resume point it reads all: it
// is there for the start after a crash, where being right matters more than being
// quick, and where the one before it may be intact.
func (p *plan) verify(ctx context.Context, st *store.Store) error {
	var err error
	switch {
	case p.resumes():
		err = st.Verify(ctx, *p.entry, nil)
	case p.entry != nil:
		err = st.VerifyMetadata(*p.entry)
	}
	if err != nil {
		return err
	}
	return criu.CheckImages(p.images)
}

// plan decides how the container starts.
func (s *Starter) plan(ctx context.Context, i *Init, failed map[string]string) (*plan, error) {
	if i.req.Checkpoint != "" {
		return s.planDirectory(i)
	}
	node := decide.Node{Store: s.Store, Facts: s.hostFacts}
	if s.StoreErr != nil {
		node.Store, node.StoreErr = nil, fmt.Errorf("%w: %w", s.StoreErr, errdefs.ErrFailedPrecondition)
	}
	answer, err := node.Decide(ctx, decide.Container{
		OCI:      i.oci,
		Settings: i.settings,
		Owner:    i.owner(),
		Failed:   failed,
		Rootfs: func(ctx context.Context) (string, error) {
			id, err := s.Images.Lookup(ctx, i.req.ID)
			i.rec.phase("identity")
			return id.Rootfs, err
		},
		Fresh: i.rootfs.Fresh,
	})
	if err != nil {
		return nil, notFound(err)
	}
	p := &plan{decision: answer.Decision, fingerprint: answer.Fingerprint, memory: answer.Memory, memoryReason: answer.MemoryReason}
	if p.decision.Action == checkpoint.Boot {
		if p.decision.Demanded {
			return nil, fmt.Errorf("restore was asked for: %s: %w", p.decision.Reason, errdefs.ErrFailedPrecondition)
		}
		return p, nil
	}
	p.entry = answer.Entry
	p.ref = match.Ref(*p.entry)
	p.images = filepath.Join(p.entry.Dir, "images")
	p.diff = filepath.Join(p.entry.Dir, "diff")
	p.detached = true
	if i.settings.TCP == spec.TCPEstablished {
		p.connections = p.entry.Checkpoint.Connections
	}
	p.criu = criuConfig(len(p.connections) > 0)
	if p.release, err = s.Store.Hold(p.entry.Digest); err != nil {
		if p.decision.Demanded {
			return nil, err
		}
		p.decision = checkpoint.Decision{Action: checkpoint.Boot, Reason: err.Error(), Class: checkpoint.ClassTrouble, Verdicts: p.decision.Verdicts}
	}
	return p, nil
}

// hostFacts says what this node offers. Without CRIU it offers no restore.
func (s *Starter) hostFacts(ctx context.Context) (checkpoint.HostFacts, error) {
	facts, err := decide.HostFacts(ctx, s.Store.Root())
	if err == nil && facts.CRIU == 0 {
		_, cause := criu.Find()
		log.G(ctx).WithError(cause).Info("no usable CRIU")
	}
	return facts, err
}

// planDirectory restores from images that the caller of Create names. They are
// demanded: a failure fails the start, as it does under the stock shim.
func (s *Starter) planDirectory(i *Init) (*plan, error) {
	dir := i.req.Checkpoint
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		return nil, fmt.Errorf("checkpoint %s: not a directory of CRIU images: %w", dir, errors.Join(errdefs.ErrInvalidArgument, err))
	}
	return &plan{
		decision: checkpoint.Decision{Action: checkpoint.Restore, Reason: "the caller names a directory of CRIU images", Class: checkpoint.ClassImages, Demanded: true},
		ref:      dir,
		images:   dir,
		legacy:   true,
		criu:     legacyConfig(true),
	}, nil
}

// notFound gives the store's errors the classes that clients expect.
func notFound(err error) error {
	switch {
	case errors.Is(err, checkpoint.ErrNotFound):
		return fmt.Errorf("%w: %w", err, errdefs.ErrNotFound)
	case errors.Is(err, checkpoint.ErrInvalid), errors.Is(err, checkpoint.ErrAmbiguous):
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	case errors.Is(err, checkpoint.ErrExists):
		return fmt.Errorf("%w: %w", err, errdefs.ErrAlreadyExists)
	case errors.Is(err, decide.ErrUnavailable):
		return fmt.Errorf("%w: %w", err, errdefs.ErrFailedPrecondition)
	}
	return err
}

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
	"github.com/containerd-snap/snap/checkpoint/host"
	"github.com/containerd-snap/snap/checkpoint/match"
	"github.com/containerd-snap/snap/checkpoint/store"
	"github.com/containerd-snap/snap/oci/spec"
)

// lookupTimeout bounds the question to containerd: a start must not hang on a
// daemon that does not answer.
const lookupTimeout = 2 * time.Second

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
	// criu is the configuration for the restore.
	criu criu.Config
	// staged holds the images as this restore needs them; nil for none. It is a
	// draft that is never committed: on the store's file system, and swept if
	// the shim dies.
	staged *store.Draft
	// release ends the hold on the entry; nil if there is none.
	release func()
	// gone makes letGo work once: a start that fails and the signal that made
	// it fail both let go.
	gone sync.Once
}

// letGo ends what is held for the restore: it has succeeded or failed.
func (p *plan) letGo() {
	p.gone.Do(func() {
		if p.staged != nil {
			// What remains after an error is swept with the next capture.
			_ = p.staged.Discard()
		}
		if p.release != nil {
			p.release()
		}
	})
}

// verify checks the images before CRIU sees them.
func (p *plan) verify(st *store.Store) error {
	if p.entry != nil {
		if err := st.VerifyMetadata(*p.entry); err != nil {
			return err
		}
	}
	return criu.CheckImages(p.images)
}

// plan decides how the container starts.
func (s *Starter) plan(ctx context.Context, i *Init, settings spec.Settings) (*plan, error) {
	if i.req.Checkpoint != "" {
		return s.planDirectory(i)
	}
	p := &plan{}
	req := match.Request{
		Policy:    settings.Restore,
		Sandbox:   spec.IsSandbox(i.oci),
		Obstacles: spec.Obstacles(i.oci),
	}
	demanded := settings.Checkpoint != "" || settings.Restore == spec.Required
	var candidates []checkpoint.Entry
	var facts checkpoint.HostFacts
	var err error
	switch {
	case req.Sandbox, req.Policy == spec.Never, len(req.Obstacles) > 0 && !demanded:
		// Nothing needs to be looked up: the answer does not depend on it.
	case s.Store == nil:
		err = fmt.Errorf("the checkpoint store cannot be read: %w", s.StoreErr)
	default:
		candidates, facts, err = s.candidates(ctx, i, p, settings, &req, demanded)
	}
	if err != nil {
		// What keeps us from a decision must not keep a container from starting,
		// unless a restore was asked for.
		if demanded {
			return nil, err
		}
		p.decision = checkpoint.Decision{Action: checkpoint.Boot, Reason: err.Error()}
		return p, nil
	}
	p.decision = match.Decide(req, candidates, facts)
	if p.decision.Action == checkpoint.Boot {
		if p.decision.Demanded {
			return nil, fmt.Errorf("restore was asked for: %s: %w", p.decision.Reason, errdefs.ErrFailedPrecondition)
		}
		return p, nil
	}
	for n := range candidates {
		if candidates[n].Digest == p.decision.Digest {
			p.entry = &candidates[n]
		}
	}
	p.ref = match.Ref(*p.entry)
	p.images = filepath.Join(p.entry.Dir, "images")
	p.diff = filepath.Join(p.entry.Dir, "diff")
	p.detached = true
	p.criu = restoreConfig()
	if p.release, err = s.Store.Hold(p.entry.Digest); err != nil {
		if p.decision.Demanded {
			return nil, err
		}
		p.decision = checkpoint.Decision{Action: checkpoint.Boot, Reason: err.Error(), Verdicts: p.decision.Verdicts}
	}
	return p, nil
}

// candidates looks up what the decision depends on. A store without entries
// costs next to nothing.
func (s *Starter) candidates(ctx context.Context, i *Init, p *plan, settings spec.Settings, req *match.Request, demanded bool) ([]checkpoint.Entry, checkpoint.HostFacts, error) {
	var none checkpoint.HostFacts
	empty, err := s.Store.Empty()
	if err != nil {
		return nil, none, fmt.Errorf("read the checkpoint store: %w", err)
	}
	if empty && !demanded {
		// Known to be an image, so that the decision says what is missing.
		req.Fingerprint = checkpoint.Fingerprint{spec.FieldImage: ""}
		return nil, none, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	id, err := s.Images.Lookup(ctx, i.req.ID)
	if err != nil {
		return nil, none, fmt.Errorf("the container's image is not known: %w", err)
	}
	i.rec.phase("identity")
	p.fingerprint = spec.Fingerprint(i.oci, id.Rootfs)
	req.Fingerprint = p.fingerprint
	var candidates []checkpoint.Entry
	if settings.Checkpoint != "" {
		e, err := s.Store.Resolve(settings.Checkpoint)
		if err != nil {
			return nil, none, fmt.Errorf("annotation %scheckpoint: %w", spec.Prefix, notFound(err))
		}
		req.Demanded = &e
		candidates = []checkpoint.Entry{e}
	} else if candidates, err = s.Store.Lookup(p.fingerprint.Key()); err != nil {
		return nil, none, fmt.Errorf("look the fingerprint up: %w", err)
	}
	if len(candidates) == 0 {
		return nil, none, nil
	}
	if req.FreshRootfs, err = i.rootfs.Fresh(); err != nil {
		return nil, none, err
	}
	facts, err := s.hostFacts(ctx)
	return candidates, facts, err
}

// hostFacts says what this node offers. Without CRIU it offers no restore.
func (s *Starter) hostFacts(ctx context.Context) (checkpoint.HostFacts, error) {
	version := 0
	bin, err := criu.Find()
	if err == nil {
		bin.CacheDir = s.Store.Root()
		version, err = bin.Version(ctx)
	}
	if err != nil {
		log.G(ctx).WithError(err).Info("no usable CRIU")
		version = 0
	}
	return host.Facts(version)
}

// planDirectory restores from images that the caller of Create names. They are
// demanded: a failure fails the start, as it does under the stock shim.
func (s *Starter) planDirectory(i *Init) (*plan, error) {
	dir := i.req.Checkpoint
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		return nil, fmt.Errorf("checkpoint %s: not a directory of CRIU images: %w", dir, errors.Join(errdefs.ErrInvalidArgument, err))
	}
	return &plan{
		decision: checkpoint.Decision{Action: checkpoint.Restore, Reason: "the caller names a directory of CRIU images", Demanded: true},
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
	}
	return err
}

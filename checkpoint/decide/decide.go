// Package decide gathers what a decision depends on, in the order of what it costs, and has
// match decide. The shim starts containers by it, and snapctl tells beforehand what
// a start would be: there is one way to a decision, and both go it.
//
// It reads the store and the node and changes neither. What a container is made of is for
// the caller to know. It has no state and no locks.
package decide

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/criu"
	"github.com/containerd-snap/snap/checkpoint/host"
	"github.com/containerd-snap/snap/checkpoint/match"
	"github.com/containerd-snap/snap/checkpoint/store"
	"github.com/containerd-snap/snap/oci/spec"
)

// lookupTimeout bounds the question to containerd: a start must not hang on a
// daemon that does not answer. It is as long as a loaded node may take, because a boot
// is what such a node needs least.
const lookupTimeout = 10 * time.Second

// Container is a container that is about to start.
type Container struct {
	OCI      *specs.Spec
	Settings spec.Settings
	// Rootfs says what identifies the image's file system; "" where it is not known.
	Rootfs func(context.Context) (string, error)
	// Fresh says whether nothing was written to the writable layer yet.
	Fresh func() (bool, error)
	// Owner is the container's identity, as spec.Owner gives it.
	Owner string
	// Failed says of checkpoints that this start tried already why they were of no
	// use, by digest.
	Failed map[string]string
}

// Node is where it starts.
type Node struct {
	// Store is the node's registry of checkpoints. Nil, with StoreErr, if it could not
	// be opened.
	Store    *store.Store
	StoreErr error
	// Facts says what the node offers, as HostFacts does.
	Facts func(context.Context) (checkpoint.HostFacts, error)
}

// Answer is a decision with what it was made upon.
type Answer struct {
	Decision checkpoint.Decision
	// Fingerprint is the container's; nil where the decision did not need it.
	Fingerprint checkpoint.Fingerprint
	// Entry is the checkpoint to restore from; nil for a boot.
	Entry *checkpoint.Entry
	// Memory is how its memory comes back, and MemoryReason why so.
	Memory       checkpoint.MemoryMode
	MemoryReason string
}

// Decide says how the container starts. What keeps it from a decision is no error, but
// a boot with that as its reason, unless a restore was demanded. A Decision that
// is a Boot and Demanded means that the start must fail with its Reason.
func (n Node) Decide(ctx context.Context, c Container) (Answer, error) {
	req := match.Request{
		Policy:    c.Settings.Restore,
		Sandbox:   spec.IsSandbox(c.OCI),
		Obstacles: spec.Obstacles(c.OCI),
		Owner:     c.Owner,
		Failed:    c.Failed,
	}
	demanded := c.Settings.Checkpoint != "" || c.Settings.Restore == spec.Required
	q := question{node: n, container: c, req: &req, demanded: demanded}
	var err error
	switch {
	case req.Sandbox, req.Policy == spec.Never, len(req.Obstacles) > 0 && !demanded:
		// Nothing needs to be looked up: the answer does not depend on it.
	case n.Store == nil:
		err = fmt.Errorf("the checkpoint store cannot be used: %w", n.StoreErr)
	default:
		err = q.lookUp(ctx)
	}
	a := Answer{Fingerprint: q.fingerprint}
	if err != nil {
		// What keeps us from a decision must not keep a container from starting,
		// unless a restore was asked for.
		if demanded {
			return a, err
		}
		a.Decision = checkpoint.Decision{Action: checkpoint.Boot, Reason: err.Error(), Class: checkpoint.ClassTrouble}
		return a, nil
	}
	a.Decision = match.Decide(req, q.candidates, q.facts)
	if a.Decision.Action == checkpoint.Restore {
		for i := range q.candidates {
			if q.candidates[i].Digest == a.Decision.Digest {
				a.Entry = &q.candidates[i]
			}
		}
		err = a.memory(c.Settings.Memory)
	}
	return a, err
}

// question is a decision that is being prepared.
type question struct {
	node      Node
	container Container
	req       *match.Request
	demanded  bool

	fingerprint checkpoint.Fingerprint
	candidates  []checkpoint.Entry
	facts       checkpoint.HostFacts
}

// lookUp looks up what the decision depends on. A store without entries costs next to
// nothing.
func (q *question) lookUp(ctx context.Context) error {
	st, c := q.node.Store, q.container
	empty, err := st.Empty()
	if err != nil {
		return fmt.Errorf("read the checkpoint store: %w", err)
	}
	if empty && !q.demanded {
		// Known to be an image, so that the decision says what is missing.
		q.req.Fingerprint = checkpoint.Fingerprint{spec.FieldImage: ""}
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	rootfs, err := c.Rootfs(ctx)
	if err != nil {
		return fmt.Errorf("the container's image is not known: %w", err)
	}
	q.fingerprint = spec.Fingerprint(c.OCI, rootfs)
	q.req.Fingerprint = q.fingerprint
	if ref := c.Settings.Checkpoint; ref != "" {
		e, err := st.Resolve(ref)
		if err != nil {
			return fmt.Errorf("annotation %scheckpoint: %w", spec.Prefix, err)
		}
		q.req.Demanded = &e
		q.candidates = []checkpoint.Entry{e}
	} else if err := q.lookUpCandidates(); err != nil {
		return err
	}
	if len(q.candidates) == 0 {
		return nil
	}
	if q.req.FreshRootfs, err = c.Fresh(); err != nil {
		return err
	}
	q.req.Missing = map[string]string{}
	for _, e := range q.candidates {
		q.req.Missing[e.Digest] = Missing(c.OCI, e.Checkpoint.Held)
	}
	q.facts, err = q.node.Facts(ctx)
	return err
}

// lookUpCandidates finds what comes into question: templates with the container's
// fingerprint, and its own resume points, with whatever fingerprint.
func (q *question) lookUpCandidates() error {
	templates, err := q.node.Store.Lookup(q.fingerprint.Key())
	if err != nil {
		return fmt.Errorf("look the fingerprint up: %w", err)
	}
	points, err := q.node.Store.Lookup(checkpoint.OwnerKey(q.container.Owner))
	if err != nil {
		return fmt.Errorf("look resume points up: %w", err)
	}
	q.candidates = slices.Concat(templates, points)
	return nil
}

// HostFacts says what this node offers. Without a CRIU that can be used it offers no
// restore: the version is 0 then. cacheDir keeps the version between calls.
func HostFacts(ctx context.Context, cacheDir string) (checkpoint.HostFacts, error) {
	version := 0
	bin, err := criu.Find()
	if err == nil {
		bin.CacheDir = cacheDir
		version, err = bin.Version(ctx)
	}
	if err != nil {
		version = 0
	}
	return host.Facts(version)
}

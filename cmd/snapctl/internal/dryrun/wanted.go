package dryrun

import (
	"context"
	"crypto/rand"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/containerd-snap/snap/oci/spec"
)

// Wanted is a container as `ctr run` would be asked for it; fields are named as its flags
// are.
type Wanted struct {
	Image string
	// Args replace the image's; none keep them.
	Args []string
	Env  []string
	// Annotations are KEY=VALUE, Mounts as ParseMount reads them.
	Annotations, Mounts []string
	User, Cwd           string
	TTY, NetHost        bool
	ReadOnly            bool
}

// leaseTime is after how long containerd forgets a snapshot that was not removed.
const leaseTime = 10 * time.Minute

// borrow makes a snapshot of the image, as a container of it would get one, and the record
// of a container that has it. remove removes it.
func borrow(ctx context.Context, c *client.Client, image client.Image) (_ containers.Container, remove func() error, _ error) {
	record := containers.Container{ID: "snapctl-dry-run-" + strings.ToLower(rand.Text()[:8])}
	ctx, done, err := c.WithLease(ctx, leases.WithRandomID(), leases.WithExpiration(leaseTime))
	if err != nil {
		return record, nil, fmt.Errorf("ask containerd for a lease: %w", err)
	}
	remove = func() error {
		// Also when the user has interrupted.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaseTime/60)
		defer cancel()
		err := c.SnapshotService(record.Snapshotter).Remove(ctx, record.SnapshotKey)
		if errdefs.IsNotFound(err) {
			err = nil
		}
		if derr := done(ctx); err == nil {
			err = derr
		}
		return err
	}
	err = client.WithNewSnapshot(record.ID, image)(ctx, c, &record)
	if err == nil {
		return record, remove, nil
	}
	if record.SnapshotKey == "" {
		remove = func() error { return done(context.WithoutCancel(ctx)) }
	}
	if errdefs.IsNotFound(err) {
		err = fmt.Errorf("the image is not unpacked, or not for this platform; start a container of it once: %w", err)
	}
	if rerr := remove(); rerr != nil {
		err = fmt.Errorf("%w (%w)", err, rerr)
	}
	return record, nil, fmt.Errorf("make a snapshot of %s: %w", image.Name(), err)
}

// spec makes the spec as ctr does, and reads it as the shim does.
func (w Wanted) spec(ctx context.Context, c *client.Client, image client.Image, record *containers.Container) (*specs.Spec, error) {
	opts := []oci.SpecOpts{oci.WithDefaultSpec(), oci.WithDefaultUnixDevices, oci.WithEnv(w.Env)}
	var mounts []specs.Mount
	var places []string
	for _, text := range w.Mounts {
		m, err := ParseMount(text)
		if err != nil {
			return nil, err
		}
		mounts, places = append(mounts, m), append(places, m.Destination)
	}
	opts = append(opts, oci.WithoutMounts(places...), oci.WithMounts(mounts), oci.WithImageConfig(image))
	if w.ReadOnly {
		opts = append(opts, oci.WithRootFSReadonly())
	}
	if len(w.Args) > 0 {
		opts = append(opts, oci.WithProcessArgs(w.Args...))
	}
	if w.Cwd != "" {
		opts = append(opts, oci.WithProcessCwd(w.Cwd))
	}
	if w.User != "" {
		opts = append(opts, oci.WithUser(w.User), oci.WithAdditionalGIDs(w.User))
	}
	if w.TTY {
		opts = append(opts, oci.WithTTY)
	}
	if w.NetHost {
		hostname, err := os.Hostname()
		if err != nil {
			return nil, err
		}
		opts = append(opts, oci.WithHostNamespace(specs.NetworkNamespace), oci.WithHostHostsFile, oci.WithHostResolvconf,
			oci.WithEnv([]string{"HOSTNAME=" + hostname}))
	}
	annotations := map[string]string{}
	for _, a := range w.Annotations {
		key, value, ok := strings.Cut(a, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("annotation %q: write KEY=VALUE", a)
		}
		annotations[key] = value
	}
	opts = append(opts, oci.WithAnnotations(annotations))
	var s specs.Spec
	if err := oci.ApplyOpts(ctx, c, record, &s, opts...); err != nil {
		return nil, err
	}
	raw, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	return spec.Decode(raw, "/")
}

// ParseMount reads a mount as `ctr run --mount` does:
// "type=bind,src=/a,dst=/b,options=rbind:ro".
func ParseMount(text string) (specs.Mount, error) {
	var m specs.Mount
	fields, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil {
		return m, fmt.Errorf("mount %q: %w", text, err)
	}
	for _, field := range fields {
		key, value, _ := strings.Cut(field, "=")
		switch key {
		case "type":
			m.Type = value
		case "source", "src":
			m.Source = value
		case "destination", "dst":
			m.Destination = value
		case "options":
			m.Options = strings.Split(value, ":")
		default:
			return m, fmt.Errorf("mount %q: unknown key %q; write type=bind,src=/a,dst=/b,options=rbind:ro", text, key)
		}
	}
	if m.Destination == "" {
		return m, fmt.Errorf("mount %q: dst is missing", text)
	}
	return m, nil
}

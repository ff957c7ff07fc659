// Package identity asks containerd what a container is made of. The runtime
// spec does not say: it names neither image nor digest.
package identity

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/api/services/containers/v1"
	"github.com/containerd/containerd/api/services/images/v1"
	"github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/pkg/namespaces"
)

// Identity is what a container is made of.
type Identity struct {
	// Image is the image's name as the container's record has it; may be empty.
	Image string
	// ImageDigest is the digest that the name stands for now; may be empty.
	ImageDigest string
	// Rootfs is the chain ID of the image's layers for the platform: it is
	// equal on every node, for every tag and snapshotter, exactly where the
	// program's files are. Empty if the container has no snapshot of an image.
	Rootfs string
}

// Client asks one containerd.
type Client struct {
	// Address is the path of its gRPC socket.
	Address string
}

// Lookup returns the identity of a container of ctx's namespace.
func (c Client) Lookup(ctx context.Context, id string) (Identity, error) {
	ns, err := namespaces.NamespaceRequired(ctx)
	if err != nil {
		return Identity{}, err
	}
	var ctr containers.GetContainerResponse
	if err := c.unary(ctx, ns, "/containerd.services.containers.v1.Containers/Get", &containers.GetContainerRequest{ID: id}, &ctr); err != nil {
		return Identity{}, fmt.Errorf("ask containerd for container %s: %w", id, err)
	}
	i := Identity{Image: ctr.GetContainer().GetImage()}
	digest := make(chan string, 1)
	go func() { digest <- c.imageDigest(ctx, ns, i.Image) }()
	if key := ctr.GetContainer().GetSnapshotKey(); key != "" {
		var st snapshots.StatSnapshotResponse
		err := c.unary(ctx, ns, "/containerd.services.snapshots.v1.Snapshots/Stat", &snapshots.StatSnapshotRequest{
			Snapshotter: ctr.GetContainer().GetSnapshotter(),
			Key:         key,
		}, &st)
		if err != nil {
			return Identity{}, fmt.Errorf("ask containerd for snapshot %s: %w", key, err)
		}
		i.Rootfs = st.GetInfo().GetParent()
	}
	i.ImageDigest = <-digest
	return i, nil
}

// imageDigest resolves an image's name. An image may have been removed while
// its containers live; its digest is then not known, and not needed.
func (c Client) imageDigest(ctx context.Context, ns, name string) string {
	if name == "" {
		return ""
	}
	var img images.GetImageResponse
	if err := c.unary(ctx, ns, "/containerd.services.images.v1.Images/Get", &images.GetImageRequest{Name: name}, &img); err != nil {
		return ""
	}
	return img.GetImage().GetTarget().GetDigest()
}

package identity

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/api/services/containers/v1"
	"github.com/containerd/containerd/api/services/images/v1"
	"github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/ttrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const chainID = "sha256:1111111111111111111111111111111111111111111111111111111111111111"

// containerd is as much of it as the client asks, in the namespace "test".
type containerd struct {
	containers.UnimplementedContainersServer
	containers map[string]*containers.Container
	parents    map[string]string
	images     map[string]string
}

func check(ctx context.Context) error {
	md, _ := metadata.FromIncomingContext(ctx)
	if ns := md.Get("containerd-namespace"); len(ns) == 0 || ns[0] != "test" {
		return status.Errorf(codes.InvalidArgument, "namespace %v", ns)
	}
	return nil
}

func (c *containerd) Get(ctx context.Context, r *containers.GetContainerRequest) (*containers.GetContainerResponse, error) {
	if err := check(ctx); err != nil {
		return nil, err
	}
	if ctr, ok := c.containers[r.GetID()]; ok {
		return &containers.GetContainerResponse{Container: ctr}, nil
	}
	return nil, status.Error(codes.NotFound, "no such container")
}

type snapshotServer struct {
	snapshots.UnimplementedSnapshotsServer
	*containerd
}

func (s *snapshotServer) Stat(ctx context.Context, r *snapshots.StatSnapshotRequest) (*snapshots.StatSnapshotResponse, error) {
	if err := check(ctx); err != nil {
		return nil, err
	}
	if parent, ok := s.parents[r.GetSnapshotter()+"/"+r.GetKey()]; ok {
		return &snapshots.StatSnapshotResponse{Info: &snapshots.Info{Parent: parent}}, nil
	}
	return nil, status.Error(codes.NotFound, "no such snapshot")
}

type imageServer struct {
	images.UnimplementedImagesServer
	*containerd
}

func (s *imageServer) Get(ctx context.Context, r *images.GetImageRequest) (*images.GetImageResponse, error) {
	if err := check(ctx); err != nil {
		return nil, err
	}
	if digest, ok := s.images[r.GetName()]; ok {
		return &images.GetImageResponse{Image: &images.Image{Target: &types.Descriptor{Digest: digest}}}, nil
	}
	return nil, status.Error(codes.NotFound, "no such image")
}

func serve(t *testing.T, c *containerd) Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "containerd.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	containers.RegisterContainersServer(s, c)
	snapshots.RegisterSnapshotsServer(s, &snapshotServer{containerd: c})
	images.RegisterImagesServer(s, &imageServer{containerd: c})
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return Client{Address: path}
}

func TestLookup(t *testing.T) {
	client := serve(t, &containerd{
		containers: map[string]*containers.Container{
			"app":      {ID: "app", Image: "docker.io/library/app:1", Snapshotter: "overlayfs", SnapshotKey: "app-rw"},
			"untagged": {ID: "untagged", Image: "gone", Snapshotter: "overlayfs", SnapshotKey: "app-rw"},
			"rootfs":   {ID: "rootfs"},
			"scratch":  {ID: "scratch", Snapshotter: "overlayfs", SnapshotKey: "scratch"},
			"lost":     {ID: "lost", Snapshotter: "native", SnapshotKey: "app-rw"},
		},
		parents: map[string]string{"overlayfs/app-rw": chainID, "overlayfs/scratch": ""},
		images:  map[string]string{"docker.io/library/app:1": "sha256:2222"},
	})
	ctx := namespaces.WithNamespace(t.Context(), "test")
	for id, want := range map[string]Identity{
		"app":      {Image: "docker.io/library/app:1", ImageDigest: "sha256:2222", Rootfs: chainID},
		"untagged": {Image: "gone", Rootfs: chainID},
		"rootfs":   {},
		"scratch":  {},
	} {
		if got, err := client.Lookup(ctx, id); err != nil || got != want {
			t.Errorf("%s: %+v, %v", id, got, err)
		}
	}
	for id, words := range map[string]string{"none": "container none", "lost": "snapshot app-rw"} {
		_, err := client.Lookup(ctx, id)
		if status.Code(err) != codes.NotFound || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v", id, err)
		}
	}
	// A request that came over ttrpc carries the namespace in a header of that.
	ctx = ttrpc.WithMetadata(t.Context(), ttrpc.MD{namespaces.TTRPCHeader: {"test"}})
	if got, err := client.Lookup(ctx, "app"); err != nil || got.Rootfs != chainID {
		t.Errorf("with a ttrpc header: %+v, %v", got, err)
	}
	if _, err := client.Lookup(t.Context(), "app"); err == nil || !strings.Contains(err.Error(), "namespace") {
		t.Errorf("without a namespace: %v", err)
	}
}

// A containerd that is not there, or does not answer, is told within the caller's time.
func TestNoContainerd(t *testing.T) {
	dir := t.TempDir()
	mute, err := net.Listen("unix", filepath.Join(dir, "mute"))
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	for name, want := range map[string]codes.Code{"gone": codes.Unavailable, "mute": codes.DeadlineExceeded} {
		ctx, cancel := context.WithTimeout(namespaces.WithNamespace(t.Context(), "test"), 300*time.Millisecond)
		_, err := Client{Address: filepath.Join(dir, name)}.Lookup(ctx, "app")
		cancel()
		if status.Code(err) != want || !strings.Contains(err.Error(), "ask containerd for container app") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

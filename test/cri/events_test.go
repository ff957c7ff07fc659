package cri

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestEvents follows what a kubelet with evented PLEG is told about a pod.
func TestEvents(t *testing.T) {
	each(t, func(t *testing.T, handler string) {
		ctx, cancel := context.WithTimeout(t.Context(), deadline)
		defer cancel()
		events := make(chan *runtimeapi.ContainerEventResponse, 1000)
		connected, done := make(chan struct{}), make(chan error, 1)
		go func() {
			done <- runtime.GetContainerEvents(ctx, events, func(runtimeapi.RuntimeService_GetContainerEventsClient) { close(connected) })
		}()
		<-connected
		p := runPod(t, handler)
		c := p.startShell("a", "exit 5")
		c.ended()
		c.remove()
		if err := p.remove(); err != nil {
			t.Fatal(err)
		}
		names := map[string]string{p.id: "pod", c.id: "a"}
		var got []string
		for len(got) == 0 || got[len(got)-1] != "pod deleted" {
			select {
			case e := <-events:
				if name := names[e.GetContainerId()]; name != "" {
					kind := strings.TrimSuffix(strings.TrimPrefix(e.GetContainerEventType().String(), "CONTAINER_"), "_EVENT")
					got = append(got, name+" "+strings.ToLower(kind))
				}
			case <-ctx.Done():
				t.Fatalf("the pod's deletion is not told: %q", got)
			}
		}
		want := []string{"pod created", "pod started", "a created", "a started", "a stopped", "a deleted", "pod stopped", "pod deleted"}
		if !slices.Equal(got, want) {
			t.Errorf("events %q, want %q", got, want)
		}
		cancel()
		<-done
	})
}

// TestCheckpointContainer takes an archive of a running container, as the
// kubelet's checkpoint API does. It is no checkpoint of ours, and must hold what
// the stock runtime puts into it.
func TestCheckpointContainer(t *testing.T) {
	each(t, func(t *testing.T, handler string) {
		p := runPod(t, handler)
		c := p.startProbe("web")
		before := c.probe()
		archive := filepath.Join(t.TempDir(), "checkpoint.tar")
		if err := runtime.CheckpointContainer(testContext(t), &runtimeapi.CheckpointContainerRequest{ContainerId: c.id, Location: archive, Timeout: 20}); err != nil {
			t.Fatal(err)
		}
		c.goesOn(before)
		names := tarNames(t, archive)
		for _, want := range []string{"config.dump", "spec.dump", "status.dump", "rootfs-diff.tar", "checkpoint/inventory.img", "checkpoint/pages-1.img", "checkpoint/descriptors.json"} {
			if !slices.Contains(names, want) {
				t.Errorf("the archive lacks %s: %q", want, names)
			}
		}
	})
}

// tarNames lists an archive.
func tarNames(t *testing.T, archive string) []string {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var names []string
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, path.Clean(h.Name))
	}
}

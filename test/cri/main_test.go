// Package cri runs pods through containerd's CRI plugin, as a kubelet does, with
// real network plugins and everything in namespaces that the test makes.
//
// What does not depend on checkpoints runs under our handler and under the stock
// runtime's, and must come out the same.
package cri

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	remote "k8s.io/cri-client/pkg"

	"github.com/containerd-snap/snap/test/harness"
	"github.com/containerd-snap/snap/test/harness/run"
)

// The images' names.
const (
	busyboxImage = run.BusyboxImage
	probeImage   = run.ProbeImage
	pauseImage   = "localhost/snap/pause:1"
)

// The runtime handlers' names.
const (
	snap  = "snap"
	runc  = "runc"
	tuned = "snap-tuned" // ours, with a table of options
)

// deadline bounds everything that a test waits for.
const deadline = 30 * time.Second

var (
	node    *harness.Node
	runtime internalapi.RuntimeService
)

func TestMain(m *testing.M) {
	harness.Main(m, harness.Suite{Name: "cri", Network: true, SetUp: prepare})
}

func prepare(ctx context.Context, dir string) (_ func() error, err error) {
	archives, err := makeImages(ctx, dir)
	if err != nil {
		return nil, err
	}
	handlers, err := optionHandlers(dir)
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(shimCgroupDir(), 0o755); err != nil {
		return nil, err
	}
	node, err = harness.Start(ctx, harness.Options{Stock: true, CRI: &harness.CRI{
		PauseImage: pauseImage,
		Handlers: append([]harness.Handler{
			{Name: snap, Runtime: harness.Runtime, Network: bridge},
			{Name: runc, Runtime: "io.containerd.runc.v2", Network: bridge},
		}, handlers...),
	}})
	if err != nil {
		return nil, errors.Join(err, os.Remove(shimCgroupDir()))
	}
	if err := connect(ctx, archives); err != nil {
		return nil, errors.Join(err, stopNode())
	}
	return stopNode, nil
}

// connect loads the images and waits until CRI knows them.
func connect(ctx context.Context, archives map[string]string) (err error) {
	endpoint := "unix://" + node.Address
	runtime, err = remote.NewRemoteRuntimeServiceBuilder().WithEndpoint(endpoint).WithConnectionTimeout(deadline).WithTracerProvider(nil).Build(ctx)
	if err != nil {
		return err
	}
	images, err := remote.NewRemoteImageServiceBuilder().WithEndpoint(endpoint).WithConnectionTimeout(deadline).WithTracerProvider(nil).Build(ctx)
	if err != nil {
		return err
	}
	for name, archive := range archives {
		if err := node.Import(ctx, archive); err != nil {
			return err
		}
		for {
			st, err := images.ImageStatus(ctx, &runtimeapi.ImageSpec{Image: name}, false)
			if err != nil {
				return fmt.Errorf("wait for image %s: %w", name, err)
			}
			if st.GetImage() != nil {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	return nil
}

// makeImages builds the programs of the tests and puts them into images.
func makeImages(ctx context.Context, dir string) (map[string]string, error) {
	busybox, err := harness.Image("busybox")
	if err != nil {
		return nil, err
	}
	pause, err := harness.ProgramImage(ctx, dir, pauseImage, "github.com/containerd-snap/snap/test/images/pause")
	if err != nil {
		return nil, err
	}
	probe, err := harness.ProgramImage(ctx, dir, probeImage, run.ProbeProgram)
	if err != nil {
		return nil, err
	}
	return map[string]string{busyboxImage: busybox, pauseImage: pause, probeImage: probe}, nil
}

// stopNode stops the node. Something left over is an error: the tests have
// removed their pods.
func stopNode() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	left, err := node.Settle(ctx)
	if !left.Empty() {
		err = errors.Join(err, fmt.Errorf("something was left on the node when its pods were removed:\n%s", left))
	}
	_, serr := node.Stop(ctx)
	return errors.Join(err, serr, os.Remove(shimCgroupDir()))
}

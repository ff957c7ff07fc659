// Package pressure compares the shim with the stock one on one node, under load
// and at rest: nothing fails, nothing is left, and ours costs no more.
//
// A test writes what it measured to out/, below the repository. The sizes are
// flags; what `make test` runs is short and asserts no times, `make stress` is the whole.
package pressure

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/containerd-snap/snap/test/harness"
	"github.com/containerd-snap/snap/test/harness/run"
)

// The runtimes, as the results name them.
const (
	snap = "snap"
	runc = "runc"
)

// runtimes are containerd's names of them, shims the names of their programs.
var (
	runtimes = map[string]string{snap: harness.Runtime, runc: "io.containerd.runc.v2"}
	shims    = map[string]string{snap: "containerd-shim-snap-v2", runc: "containerd-shim-runc-v2"}
)

const (
	image = "localhost/snap/pressure:1"
	// deadline bounds everything that a test waits for.
	deadline = 30 * time.Second
)

// archive is an image archive with busybox and the user that containerd-stress
// runs its containers as.
var archive string

func TestMain(m *testing.M) { harness.Main(m, harness.Suite{Name: "pressure", SetUp: prepare}) }

func prepare(_ context.Context, dir string) (_ func() error, err error) {
	archive, err = makeImage(dir)
	return nil, err
}

func makeImage(dir string) (string, error) {
	busybox, err := harness.Image("busybox")
	if err != nil {
		return "", err
	}
	maker, err := harness.Tool("images")
	if err != nil {
		return "", err
	}
	etc := filepath.Join(dir, "layer", "etc")
	if err := os.MkdirAll(etc, 0o755); err != nil {
		return "", err
	}
	users := "root:x:0:0:root:/root:/bin/sh\ngames:x:5:60:games:/usr/games:/bin/false\n"
	if err := os.WriteFile(filepath.Join(etc, "passwd"), []byte(users), 0o644); err != nil { //nolint:gosec // the container's users read it
		return "", err
	}
	path := filepath.Join(dir, "image.tar")
	out, err := exec.Command(maker, "-o", path, "-name", image, "-from", busybox, "-add", filepath.Dir(etc), "/bin/sh").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("make the image: %w: %s", err, out)
	}
	return path, nil
}

// newNode starts a node with both runtimes.
func newNode(t *testing.T, o harness.Options) *harness.Node {
	t.Helper()
	o.Stock, o.Images = true, []string{archive}
	return run.Node(t, o)
}

// container is a container with its task.
type container struct {
	client.Container
	task client.Task
	exit <-chan client.ExitStatus
}

// start runs a command in a container of the runtime.
func start(ctx context.Context, n *harness.Node, runtime, id string, opts []oci.SpecOpts, args ...string) (_ *container, retErr error) {
	img, err := n.Client().GetImage(ctx, image)
	if err != nil {
		return nil, err
	}
	opts = append([]oci.SpecOpts{oci.WithImageConfig(img), oci.WithProcessArgs(args...)}, opts...)
	c := &container{}
	c.Container, err = n.Client().NewContainer(ctx, id, client.WithNewSnapshot(id, img),
		client.WithRuntime(runtimes[runtime], nil), client.WithNewSpec(opts...))
	if err != nil {
		return nil, err
	}
	defer func() {
		if retErr != nil {
			retErr = errors.Join(retErr, c.remove())
		}
	}()
	if c.task, err = c.NewTask(ctx, cio.NewCreator(cio.WithStreams(nil, io.Discard, io.Discard), cio.WithFIFODir(n.Dir))); err != nil {
		return nil, err
	}
	if c.exit, err = c.task.Wait(context.WithoutCancel(ctx)); err != nil {
		return nil, err
	}
	return c, c.task.Start(ctx)
}

// wait returns the exit status.
func (c *container) wait(ctx context.Context) (uint32, error) {
	select {
	case s := <-c.exit:
		return s.ExitCode(), s.Error()
	case <-time.After(deadline):
		return 0, fmt.Errorf("%s did not end within %s", c.ID(), deadline)
	case <-ctx.Done():
		return 0, fmt.Errorf("wait for %s: %w", c.ID(), ctx.Err())
	}
}

// exec runs a command in the container, to its end.
func (c *container) exec(ctx context.Context, id string, args ...string) (retErr error) {
	p, err := c.task.Exec(ctx, id, &specs.Process{Args: args, Cwd: "/", Env: []string{"PATH=/bin"}},
		cio.NewCreator(cio.WithStreams(nil, io.Discard, io.Discard)))
	if err != nil {
		return err
	}
	defer func() {
		_, err := p.Delete(ctx, client.WithProcessKill)
		retErr = errors.Join(retErr, err)
	}()
	exit, err := p.Wait(ctx)
	if err != nil {
		return err
	}
	if err := p.Start(ctx); err != nil {
		return err
	}
	select {
	case s := <-exit:
		if s.ExitCode() != 0 {
			return errors.Join(fmt.Errorf("exec of %v ended with status %d", args, s.ExitCode()), s.Error())
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// remove removes the container with its task.
func (c *container) remove() error {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	var errs []error
	if c.task != nil {
		_, err := c.task.Delete(ctx, client.WithProcessKill)
		errs = append(errs, err)
	}
	return errors.Join(append(errs, c.Delete(ctx, client.WithSnapshotCleanup))...)
}

// testContext ends with the test, and after the deadline.
func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	t.Cleanup(cancel)
	return ctx
}

// report writes what was measured to a file in out/, and prints it.
func report(t *testing.T, file string, v any) {
	t.Helper()
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s:\n%s", file, data)
	dir := filepath.Join("..", "..", "out")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, file), append(data, '\n'), 0o644); err != nil { //nolint:gosec // a result is for all to read
		t.Fatal(err)
	}
}

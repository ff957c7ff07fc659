package failpoint

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/test/failpoint/fault"
	"github.com/containerd-snap/snap/test/harness"
)

// deadline bounds everything that a test waits for.
const deadline = 30 * time.Second

var serial atomic.Int64

// container is one whose shim fails once.
type container struct {
	*testing.T
	client.Container
	node *harness.Node
	// once is the file that tells that the fault has happened.
	once string
	task client.Task
	exit <-chan client.ExitStatus
	e    client.Process
}

// newContainer makes a container whose shim fails somewhere; nowhere if where is empty.
func newContainer(t *testing.T, n *harness.Node, where, how string) *container {
	t.Helper()
	c := &container{T: t, node: n, once: filepath.Join(t.TempDir(), "happened")}
	image, err := n.Client().GetImage(c.context(), busyboxImage)
	c.must(err)
	id := fmt.Sprintf("f%d", serial.Add(1))
	c.Container, err = n.Client().NewContainer(c.context(), id,
		client.WithImage(image), client.WithNewSnapshot(id, image), client.WithRuntime(runtime, nil),
		client.WithNewSpec(oci.WithImageConfig(image), oci.WithProcessArgs("sh", "-c", "trap '' USR1; while :; do sleep 0.1; done"),
			oci.WithAnnotations(map[string]string{fault.Where: where, fault.How: how, fault.Once: c.once})))
	c.must(err)
	t.Cleanup(c.remove)
	return c
}

func (c *container) context() context.Context {
	ctx, cancel := context.WithTimeout(c.T.Context(), deadline)
	c.Cleanup(cancel)
	return ctx
}

func (c *container) must(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

func (c *container) eventually(check func() error) {
	c.Helper()
	ctx := c.context()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			c.Fatal(err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// create, start and so on are what a client does, step by step.

func (c *container) create() (err error) {
	c.task, err = c.NewTask(c.context(), cio.NullIO)
	return err
}

func (c *container) start() error { return c.task.Start(c.context()) }

func (c *container) wait() (err error) {
	c.exit, err = c.task.Wait(context.WithoutCancel(c.context()))
	return err
}

func (c *container) exec() error {
	sp, err := c.Spec(c.context())
	if err != nil {
		return err
	}
	p := *sp.Process
	p.Args = []string{"sleep", "1000"}
	e, err := c.task.Exec(c.context(), "e", &p, cio.NullIO)
	if err == nil {
		c.e = e
		return nil
	}
	if c.e == nil {
		// The client may have lost an exec that the shim knows.
		if e, lerr := c.task.LoadProcess(c.context(), "e", nil); lerr == nil {
			c.e = e
		}
	}
	return err
}

func (c *container) startExec() error { return c.e.Start(c.context()) }

func (c *container) killExec() error {
	exit, err := c.e.Wait(c.context())
	if err != nil {
		return err
	}
	if err := c.e.Kill(c.context(), unix.SIGKILL); err != nil {
		return err
	}
	<-exit
	return nil
}

func (c *container) deleteExec() error {
	_, err := c.e.Delete(c.context())
	return err
}

func (c *container) pause() error  { return c.task.Pause(c.context()) }
func (c *container) resume() error { return c.task.Resume(c.context()) }

func (c *container) kill() error { return c.task.Kill(c.context(), unix.SIGUSR1) }

func (c *container) end() error {
	if err := c.wait(); err != nil {
		return err
	}
	if err := c.task.Kill(c.context(), unix.SIGKILL); err != nil {
		return err
	}
	<-c.exit
	return nil
}

func (c *container) delete() error {
	_, err := c.task.Delete(c.context())
	return err
}

func (c *container) pids() error {
	_, err := c.task.Pids(c.context())
	return err
}

func (c *container) stats() error {
	_, err := c.task.Metrics(c.context())
	return err
}

func (c *container) state() error {
	_, err := c.task.Status(c.context())
	return err
}

func (c *container) closeIO() error { return c.task.CloseIO(c.context(), client.WithStdinCloser) }

func (c *container) resize() error { return c.task.Resize(c.context(), 80, 24) }

func (c *container) update() error {
	limit := int64(100 << 20)
	return c.task.Update(c.context(), client.WithResources(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}))
}

func (c *container) checkpoint() error {
	_, err := c.task.Checkpoint(c.context(), client.WithCheckpointImagePath(c.TempDir()))
	return err
}

// happened says whether the fault has happened.
func (c *container) happened() bool {
	_, err := os.Stat(c.once)
	return err == nil
}

// remove removes the container with whatever it has.
func (c *container) remove() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.T.Context()), deadline)
	defer cancel()
	for {
		task, err := c.Task(ctx, nil)
		if err == nil {
			_, err = task.Delete(ctx, client.WithProcessKill)
		} else if errdefs.IsNotFound(err) {
			// It may be that only containerd knows of it, if its shim's end failed.
			_, err = c.node.Client().TaskService().Delete(ctx, &tasks.DeleteTaskRequest{ContainerID: c.ID()})
			err = errgrpc.ToNative(err)
		}
		if err == nil || errdefs.IsNotFound(err) {
			break
		}
		// A fault that has not happened may happen now, and a dead shim is noticed in a moment.
		if ctx.Err() != nil || !strings.Contains(err.Error(), "ttrpc") && !strings.Contains(err.Error(), "injected") {
			c.Errorf("delete the task: %v", err)
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err := c.Delete(ctx, client.WithSnapshotCleanup); err != nil && !errdefs.IsNotFound(err) {
		c.Errorf("delete the container: %v", err)
	}
}

// again runs a second task of the container, from its creation to its deletion.
func (c *container) again() {
	c.Helper()
	c.eventually(func() error {
		err := c.create()
		if err != nil && !errdefs.IsAlreadyExists(err) {
			c.Fatal(err)
		}
		return err // containerd is still at cleaning up
	})
	c.must(c.start())
	c.must(c.end())
	c.must(c.delete())
}

package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/test/harness"
)

// TestCheckpointTask takes checkpoints as users of the stock shim do.
func TestCheckpointTask(t *testing.T) {
	t.Parallel()
	t.Run("to a directory", func(t *testing.T) {
		t.Parallel()
		c := start(t, shared, probeOf())
		before := c.Probe()
		dir := filepath.Join(t.TempDir(), "images")
		if _, err := shared.Ctr(testContext(t), "task", "checkpoint", "--image-path", dir, c.ID()); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(dir, "inventory.img")); err != nil {
			t.Error(err)
		}
		c.GoesOn(before)
	})
	t.Run("with an empty network", func(t *testing.T) {
		t.Parallel()
		c := start(t, shared, probeOf())
		before := c.Probe()
		checkpoint := func(namespaces ...string) (string, error) {
			dir := filepath.Join(t.TempDir(), "images")
			_, err := c.Task.Checkpoint(testContext(t), func(i *client.CheckpointTaskInfo) error {
				i.Options = &options.CheckpointOptions{ImagePath: dir, EmptyNamespaces: namespaces}
				return nil
			})
			return dir, err
		}
		dir, err := checkpoint("network")
		if err != nil {
			t.Fatal(err)
		}
		if devices, err := filepath.Glob(filepath.Join(dir, "netdev-*.img")); err != nil || len(devices) > 0 {
			t.Errorf("network devices in the images: %q, %v", devices, err)
		}
		if _, err := checkpoint("uts"); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "uts") {
			t.Errorf("empty uts: %v", err)
		}
		c.GoesOn(before)
	})
	t.Run("to an image", func(t *testing.T) {
		t.Parallel()
		c := start(t, shared, probeOf())
		before := c.Probe()
		out, err := shared.Ctr(testContext(t), "task", "checkpoint", c.ID())
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out.Stdout, "checkpoint") {
			t.Errorf("printed %q", out.Stdout)
		}
		c.GoesOn(before)
	})
	t.Run("container checkpoint and restore", func(t *testing.T) {
		t.Parallel()
		c := start(t, shared, probeOf())
		before := c.Probe()
		c.MustExec("sh", "-c", "echo written >/written")
		ref := "localhost/checkpoint:" + c.ID()
		if _, err := shared.Ctr(testContext(t), "container", "checkpoint", "--task", "--rw", "--image", c.ID(), ref); err != nil {
			t.Fatal(err)
		}
		c.GoesOn(before)
		// The restored container's spec names the cgroup of the captured one.
		c.Kill(unix.SIGKILL)
		c.Wait()
		c.DeleteTask()
		id := c.ID() + "-restored"
		if _, err := shared.Ctr(testContext(t), "container", "restore", "--live", "--rw", id, ref); err != nil {
			t.Fatal(err)
		}
		r := adopt(t, shared, id)
		r.GoesOn(before)
		if got := r.MustExec("cat", "/written"); got != "written\n" {
			t.Errorf("the restored container's file holds %q", got)
		}
		hasStats(r)
	})
}

// adopt takes over a container that a command has made.
func adopt(t *testing.T, n *harness.Node, id string) *container {
	t.Helper()
	c := &container{T: t, Node: n, Out: &output{}}
	var err error
	if c.Container, err = n.Client().LoadContainer(testContext(t), id); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			c.Tell()
		}
		c.Task = nil // without streams of ours
		if err := c.Remove(); err != nil {
			t.Error(err)
		}
	})
	if c.Task, err = c.Container.Task(testContext(t), nil); err != nil {
		t.Fatal(err)
	}
	return c
}

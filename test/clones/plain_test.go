package clones

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/test/harness"
	"github.com/containerd-snap/snap/test/harness/run"
)

// TestStoppedToDirectory: a checkpoint as of the stock shim, to a directory, of a program of
// which a signal has stopped a process. It does not wait for the stopped one; the task is
// as before, or ends if asked to; and a task made from the images has that process stopped.
func TestStoppedToDirectory(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct{ paused, exit bool }{"running": {}, "paused": {paused: true}, "ending": {exit: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := objects(t, "stopped")
			original := run.Start(t, shared, w)
			original.Out.WaitFor(t, "ready")
			mustHold(t, original, 1)
			status := client.Running
			if x.paused {
				status = client.Paused
				if err := original.Task.Pause(run.Context(t)); err != nil {
					t.Fatal(err)
				}
			}
			dir := filepath.Join(t.TempDir(), "images")
			// Not the client's own Checkpoint, which pauses the task before.
			how, err := typeurl.MarshalAnyToProto(&options.CheckpointOptions{ImagePath: dir, Exit: x.exit})
			if err != nil {
				t.Fatal(err)
			}
			request := &tasks.CheckpointTaskRequest{ContainerID: original.ID(), Options: how}
			if _, err := shared.Client().TaskService().Checkpoint(run.Context(t), request); err != nil {
				t.Fatal(err)
			}
			if x.exit {
				if code := original.Wait(); code != 137 {
					t.Errorf("exit status %d", code)
				}
			} else if got := original.Status(); got != status {
				t.Errorf("the task is %s after the checkpoint, and was %s", got, status)
			}
			if err := original.Task.Resume(run.Context(t)); x.paused && err != nil || !x.paused && !errdefs.IsFailedPrecondition(err) {
				t.Errorf("resume: %v", err)
			}
			if !x.exit {
				// A thawed process is back in its stop soon, and has not run in between.
				run.Eventually(t, func() error { return stopped(original) })
				mustHold(t, original, 2)
			}

			clone := run.New(t, shared, w)
			err = clone.Create(w, func(_ context.Context, _ *client.Client, i *client.TaskInfo) error {
				i.Options = &options.Options{CriuImagePath: dir}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := clone.Task.Start(run.Context(t)); err != nil {
				t.Fatal(err)
			}
			run.Eventually(t, func() error { return stopped(clone) })
			mustHold(t, clone, 2)
			clone.Kill(unix.SIGKILL)
			if code := clone.Wait(); code != 137 {
				t.Errorf("exit status of the clone %d", code)
			}
		})
	}
}

// stopped says whether a process of the container is stopped.
func stopped(c *run.Container) error {
	pids, err := c.Task.Pids(run.Context(c.T))
	if err != nil {
		return err
	}
	for _, p := range pids {
		if x, err := harness.ReadProcess(int(p.Pid)); err == nil && x.State == "T" {
			return nil
		}
	}
	return fmt.Errorf("%s: none of %d processes is stopped", c.ID(), len(pids))
}

package parity

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/typeurl/v2"
	"golang.org/x/sys/unix"
)

// from makes a task from a directory of images, as `ctr c restore` does.
func from(dir string) client.NewTaskOpts {
	return func(_ context.Context, _ *client.Client, ti *client.TaskInfo) error {
		ti.Options = &options.Options{CriuImagePath: dir}
		return nil
	}
}

// TestRestoreFromDirectory: a task that is made from images goes on where it was.
func TestRestoreFromDirectory(t *testing.T) {
	compare(t, "restore", func(s *side) {
		w := shell("n=0; while :; do n=$((n+1)); echo count $n; sleep 0.05; done")
		c := s.started(w)
		c.waitFor(c.out, "count 3\n")
		dir := filepath.Join(s.TempDir(), "images")
		s.must(os.Mkdir(dir, 0o700))
		exit, err := typeurl.MarshalAnyToProto(&options.CheckpointOptions{Exit: true})
		s.must(err)
		_, err = c.shim().Checkpoint(s.shimContext(), &taskapi.CheckpointTaskRequest{ID: c.ID(), Path: dir, Options: exit})
		s.must(err)
		c.wait()
		c.task.IO().Wait()
		_, err = c.task.Delete(s.context())
		s.must(err)
		before := strings.Count(c.out.String(), "\n")

		w.task = []client.NewTaskOpts{from(dir)}
		s.must(c.create(w))
		s.see("created", "%s", statusOf(c))
		s.see("a pid when it is created", "%t", c.task.Pid() > 0)
		s.must(c.task.Start(s.context()))
		s.see("started", "%s", statusOf(c))
		c.waitFor(c.out, fmt.Sprintf("count %d\n", before+3))
		s.see("booted anew", "%t", strings.Count(c.out.String(), "count 1\n") > 1)
		lo, _ := c.run("ip", "link", "show", "lo")
		s.see("loopback is up", "%t", strings.Contains(lo, "UP"))
		_, err = c.task.Metrics(s.context())
		s.seeError("metrics", err)
		pids, err := c.task.Pids(s.context())
		s.must(err)
		s.see("pids", "%t", len(pids) > 0)
		s.must(c.task.Pause(s.context()))
		s.must(c.task.Resume(s.context()))
		s.must(c.task.Kill(s.context(), unix.SIGKILL))
		s.see("exit", "%d", c.wait())
		_, err = c.task.Delete(s.context())
		s.seeError("delete", err)
	})
	compare(t, "restore from nothing", func(s *side) {
		w := shell("sleep 1000")
		w.task = []client.NewTaskOpts{from(s.TempDir())}
		c := s.newContainer(w)
		err := c.create(w)
		if err == nil {
			err = c.task.Start(s.context())
		}
		s.see("fails", "%t", err != nil)
		s.Logf("%s: %v", s.runtime, err)
	})
}

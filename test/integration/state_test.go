package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	cgroup1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	cgroup2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestPauseResume(t *testing.T) {
	t.Parallel()
	c := start(t, shared, probeOf())
	pauseAndResume(c)
}

// pauseAndResume checks that a task with a probe stands still while paused.
func pauseAndResume(c *container) {
	c.T.Helper()
	before := c.Probe()
	ctx := testContext(c.T)
	if err := c.Task.Pause(ctx); err != nil {
		c.T.Fatal(err)
	}
	if s := c.Status(); s != client.Paused {
		c.T.Errorf("status %s", s)
	}
	if _, err := c.Ask(); err == nil {
		c.T.Error("the paused program answers")
	}
	if err := c.Task.Pause(ctx); !errdefs.IsFailedPrecondition(err) {
		c.T.Errorf("pause of a paused task: %v", err)
	}
	if err := c.Task.Resume(ctx); err != nil {
		c.T.Fatal(err)
	}
	if s := c.Status(); s != client.Running {
		c.T.Errorf("status %s", s)
	}
	c.GoesOn(before)
}

func TestKillPaused(t *testing.T) {
	t.Parallel()
	c := start(t, shared, probeOf())
	if err := c.Task.Pause(testContext(t)); err != nil {
		t.Fatal(err)
	}
	c.Kill(unix.SIGKILL)
	if got := c.Wait(); got != 137 {
		t.Errorf("exit status %d", got)
	}
}

func TestStats(t *testing.T) {
	t.Parallel()
	c := start(t, shared, probeOf())
	c.Probe()
	hasStats(c)
}

// hasStats checks that the metrics are those of a container with processes.
func hasStats(c *container) {
	c.T.Helper()
	eventually(c.T, func() error {
		m, err := c.Task.Metrics(testContext(c.T))
		if err != nil {
			return err
		}
		v, err := typeurl.UnmarshalAny(m.Data)
		if err != nil {
			return err
		}
		var pids, cpu, memory uint64
		switch v := v.(type) {
		case *cgroup1.Metrics:
			pids, cpu, memory = v.GetPids().GetCurrent(), v.GetCPU().GetUsage().GetTotal(), v.GetMemory().GetUsage().GetUsage()
		case *cgroup2.Metrics:
			pids, cpu, memory = v.GetPids().GetCurrent(), v.GetCPU().GetUsageUsec(), v.GetMemory().GetUsage()
		default:
			return fmt.Errorf("metrics of type %T", v)
		}
		if pids == 0 || cpu == 0 || memory == 0 {
			return fmt.Errorf("metrics: %d pids, CPU %d, memory %d", pids, cpu, memory)
		}
		return nil
	})
}

func TestUpdate(t *testing.T) {
	t.Parallel()
	c := start(t, shared, probeOf(oci.WithMemoryLimit(200<<20)))
	updateMemory(c)
}

// updateMemory checks that an update reaches the container's cgroup.
func updateMemory(c *container) {
	c.T.Helper()
	limit := int64(100 << 20)
	err := c.Task.Update(testContext(c.T), client.WithResources(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}))
	if err != nil {
		c.T.Fatal(err)
	}
	var found []string
	for _, pattern := range []string{"memory/%s/%s/memory.limit_in_bytes", "%s/%s/memory.max"} {
		data, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", fmt.Sprintf(pattern, c.Node.Namespace, c.ID())))
		if err == nil {
			found = append(found, strings.TrimSpace(string(data)))
		}
	}
	if len(found) != 1 || found[0] != strconv.FormatInt(limit, 10) {
		c.T.Errorf("the memory limit is %q, want %d", found, limit)
	}
}

// TestWrongState checks the classes of errors, which clients go by.
func TestWrongState(t *testing.T) {
	t.Parallel()
	t.Run("created", func(t *testing.T) {
		t.Parallel()
		c := create(t, shared, probeOf())
		if err := c.Task.Pause(testContext(t)); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("pause: %v", err)
		}
		if err := c.Task.Resume(testContext(t)); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("resume: %v", err)
		}
		if _, err := c.NewTask(testContext(t), nullIO); !errdefs.IsAlreadyExists(err) {
			t.Errorf("second task: %v", err)
		}
	})
	t.Run("running", func(t *testing.T) {
		t.Parallel()
		c := start(t, shared, probeOf())
		if err := c.Task.Start(testContext(t)); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("start: %v", err)
		}
		if err := c.Task.Resume(testContext(t)); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("resume: %v", err)
		}
		if _, err := c.Task.Delete(testContext(t)); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("delete: %v", err)
		}
		if err := c.Task.Kill(testContext(t), unix.SIGUSR1, client.WithKillExecID("none")); !errdefs.IsNotFound(err) {
			t.Errorf("kill of an unknown process: %v", err)
		}
	})
	t.Run("stopped", func(t *testing.T) {
		t.Parallel()
		c := start(t, shared, shell("true"))
		c.Wait()
		if err := c.Task.Kill(testContext(t), unix.SIGTERM); !errdefs.IsNotFound(err) {
			t.Errorf("kill: %v", err)
		}
		if err := c.Task.Pause(testContext(t)); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("pause: %v", err)
		}
		if err := c.Task.Start(testContext(t)); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("start: %v", err)
		}
		c.DeleteTask()
		if _, err := c.Container.Task(testContext(t), nil); !errdefs.IsNotFound(err) {
			t.Errorf("task after its deletion: %v", err)
		}
	})
}

// TestEndBeforeStart ends tasks that were created and never started.
func TestEndBeforeStart(t *testing.T) {
	t.Parallel()
	t.Run("kill", func(t *testing.T) {
		t.Parallel()
		c := create(t, shared, probeOf())
		c.Kill(unix.SIGKILL)
		if got := c.Wait(); got != 137 {
			t.Errorf("exit status %d", got)
		}
		c.DeleteTask()
	})
	t.Run("delete", func(t *testing.T) {
		t.Parallel()
		c := create(t, shared, probeOf())
		pid := c.Pid()
		deleteTask(t, c)
		if err := unix.Kill(pid, 0); !errors.Is(err, unix.ESRCH) {
			t.Errorf("process %d after the deletion: %v", pid, err)
		}
	})
}

// deleteTask deletes a task past the client, which asks for tasks to be ended first.
func deleteTask(t *testing.T, c *container) {
	t.Helper()
	req := &tasks.DeleteTaskRequest{ContainerID: c.ID()}
	if _, err := c.Node.Client().TaskService().Delete(testContext(t), req); err != nil {
		t.Fatal(err)
	}
}

// TestExecAfterUpdate: an update must not change how processes are started.
func TestExecAfterUpdate(t *testing.T) {
	t.Parallel()
	booted, clone, _ := cloneOf(t, shared, probeOf(oci.WithMemoryLimit(200<<20)))
	for _, c := range []*container{booted, clone} {
		updateMemory(c)
		c.MustExec("true")
	}
}

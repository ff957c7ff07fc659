package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
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

	"github.com/containerd-snap/snap/shim/capture"
	"github.com/containerd-snap/snap/test/harness"
)

// TestCtr runs containers by the very command that users type.
func TestCtr(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		args    []string
		want    string
		failure string
	}{
		"exit status 0":  {args: []string{"sh", "-c", "echo out"}, want: "out\n"},
		"exit status 42": {args: []string{"sh", "-c", "exit 42"}, failure: "exit status 42"},
		"bad program":    {args: []string{"/nonexistent"}, failure: "/nonexistent"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			id := fmt.Sprintf("ctr%d", serial.Add(1))
			out, err := shared.Ctr(testContext(t), append([]string{"run", "--rm", "--runtime", harness.Runtime, busyboxImage, id}, c.args...)...)
			switch {
			case c.failure == "" && (err != nil || out.Stdout != c.want):
				t.Errorf("printed %q, %v", out.Stdout, err)
			case c.failure != "" && (err == nil || !strings.Contains(err.Error(), c.failure)):
				t.Errorf("error %v, want one that says %q", err, c.failure)
			}
		})
	}
}

// TestCtrTask does with ctr what can be done with a task.
func TestCtrTask(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	id := fmt.Sprintf("ctr%d", serial.Add(1))
	ctr := func(want string, args ...string) {
		t.Helper()
		out, err := shared.Ctr(ctx, args...)
		if err != nil || !strings.Contains(out.Stdout, want) {
			t.Errorf("ctr %q: printed %q, want %q; %v", args, out.Stdout, want, err)
		}
	}
	ctr("", "run", "-d", "--runtime", harness.Runtime, busyboxImage, id, "sleep", "1000")
	ctr("RUNNING", "task", "ls")
	ctr("in exec", "task", "exec", "--exec-id", "e", id, "echo", "in exec")
	ctr("PID", "task", "ps", id)
	ctr("METRIC", "task", "metrics", id)
	ctr("", "task", "pause", id)
	ctr("PAUSED", "task", "ls")
	ctr("", "task", "resume", id)
	ctr("", "task", "kill", "-s", "KILL", id)
	eventually(t, func() error {
		out, err := shared.Ctr(ctx, "task", "ls")
		if err == nil && !strings.Contains(out.Stdout, "STOPPED") {
			return fmt.Errorf("not stopped yet: %s", out.Stdout)
		}
		return err
	})
	ctr("", "task", "rm", id)
	ctr("", "container", "rm", id)
}

func TestExitStatus(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		script string
		sig    unix.Signal
		want   uint32
	}{
		"success":   {script: "true", want: 0},
		"failure":   {script: "exit 42", want: 42},
		"signal":    {script: "sleep 1000", sig: unix.SIGKILL, want: 137},
		"a handler": {script: "trap 'exit 7' TERM; echo ready; while true; do sleep 0.05; done", sig: unix.SIGTERM, want: 7},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := start(t, shared, shell("echo ready; "+c.script))
			if c.sig != 0 {
				k.out.waitFor(t, "ready")
				eventually(t, func() error {
					err := k.task.Kill(t.Context(), c.sig)
					if err == nil && len(k.exit) == 0 {
						err = errors.New("it has not exited yet")
					}
					if errdefs.IsNotFound(err) {
						return nil
					}
					return err
				})
			}
			if got := k.wait(); got != c.want {
				t.Errorf("exit status %d, want %d", got, c.want)
			}
			if s := k.status(); s != client.Stopped {
				t.Errorf("status after the exit: %s", s)
			}
			if s := k.delete(); s.ExitCode() != c.want || s.ExitTime().IsZero() {
				t.Errorf("the deletion says %d at %s, want %d", s.ExitCode(), s.ExitTime(), c.want)
			}
		})
	}
}

func TestStdio(t *testing.T) {
	t.Parallel()
	w := shell("echo to stderr >&2; cat")
	w.stdin = true
	c := start(t, shared, w)
	if _, err := c.stdin.Write([]byte("a line\n")); err != nil {
		t.Fatal(err)
	}
	c.out.waitFor(t, "a line")
	c.out.waitFor(t, "to stderr")
	// The end of the input ends cat.
	c.stdin.Close()
	if err := c.task.CloseIO(testContext(t), closeStdin); err != nil {
		t.Fatal(err)
	}
	if got := c.wait(); got != 0 {
		t.Errorf("exit status %d", got)
	}
}

// TestLargeOutput writes more than fits any pipe, and exits at once: none may be lost.
func TestLargeOutput(t *testing.T) {
	t.Parallel()
	c := start(t, shared, shell("head -c 3000000 /dev/zero | tr '\\0' x; echo end"))
	c.wait()
	c.task.IO().Wait()
	if out := c.out.String(); len(out) != 3000004 || !strings.HasSuffix(out, "xend\n") {
		t.Errorf("%d bytes of output", len(out))
	}
}

func TestTerminal(t *testing.T) {
	t.Parallel()
	w := shell("tty; stty -echo; while read cmd; do eval \"$cmd\"; done")
	w.terminal, w.stdin = true, true
	c := start(t, shared, w)
	c.out.waitFor(t, "/dev/pts/0")
	if err := c.task.Resize(testContext(t), 123, 45); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(c.stdin, "stty size")
	c.out.waitFor(t, "45 123")
	fmt.Fprintln(c.stdin, "exit 9")
	if got := c.wait(); got != 9 {
		t.Errorf("exit status %d", got)
	}
}

func TestPauseResume(t *testing.T) {
	t.Parallel()
	c := start(t, shared, probeOf())
	pauseAndResume(c)
}

// pauseAndResume checks that a task with a probe stands still while paused.
func pauseAndResume(c *container) {
	c.t.Helper()
	before := c.probe()
	ctx := testContext(c.t)
	if err := c.task.Pause(ctx); err != nil {
		c.t.Fatal(err)
	}
	if s := c.status(); s != client.Paused {
		c.t.Errorf("status %s", s)
	}
	if _, err := c.ask(); err == nil {
		c.t.Error("the paused program answers")
	}
	if err := c.task.Pause(ctx); !errdefs.IsFailedPrecondition(err) {
		c.t.Errorf("pause of a paused task: %v", err)
	}
	if err := c.task.Resume(ctx); err != nil {
		c.t.Fatal(err)
	}
	if s := c.status(); s != client.Running {
		c.t.Errorf("status %s", s)
	}
	c.goesOn(before)
}

func TestKillPaused(t *testing.T) {
	t.Parallel()
	c := start(t, shared, probeOf())
	if err := c.task.Pause(testContext(t)); err != nil {
		t.Fatal(err)
	}
	c.kill(unix.SIGKILL)
	if got := c.wait(); got != 137 {
		t.Errorf("exit status %d", got)
	}
}

func TestStats(t *testing.T) {
	t.Parallel()
	c := start(t, shared, probeOf())
	c.probe()
	hasStats(c)
}

// hasStats checks that the metrics are those of a container with processes.
func hasStats(c *container) {
	c.t.Helper()
	eventually(c.t, func() error {
		m, err := c.task.Metrics(testContext(c.t))
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
	c.t.Helper()
	limit := int64(100 << 20)
	err := c.task.Update(testContext(c.t), client.WithResources(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}))
	if err != nil {
		c.t.Fatal(err)
	}
	var found []string
	for _, pattern := range []string{"memory/%s/%s/memory.limit_in_bytes", "%s/%s/memory.max"} {
		data, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", fmt.Sprintf(pattern, c.node.Namespace, c.ID())))
		if err == nil {
			found = append(found, strings.TrimSpace(string(data)))
		}
	}
	if len(found) != 1 || found[0] != fmt.Sprint(limit) {
		c.t.Errorf("the memory limit is %q, want %d", found, limit)
	}
}

// TestWrongState checks the classes of errors, which clients go by.
func TestWrongState(t *testing.T) {
	t.Parallel()
	t.Run("created", func(t *testing.T) {
		t.Parallel()
		c := create(t, shared, probeOf())
		if err := c.task.Pause(testContext(t)); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("pause: %v", err)
		}
		if err := c.task.Resume(testContext(t)); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("resume: %v", err)
		}
		if _, err := c.NewTask(testContext(t), nullIO); !errdefs.IsAlreadyExists(err) {
			t.Errorf("second task: %v", err)
		}
	})
	t.Run("running", func(t *testing.T) {
		t.Parallel()
		c := start(t, shared, probeOf())
		if err := c.task.Start(testContext(t)); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("start: %v", err)
		}
		if err := c.task.Resume(testContext(t)); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("resume: %v", err)
		}
		if _, err := c.task.Delete(testContext(t)); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("delete: %v", err)
		}
		if err := c.task.Kill(testContext(t), unix.SIGUSR1, client.WithKillExecID("none")); !errdefs.IsNotFound(err) {
			t.Errorf("kill of an unknown process: %v", err)
		}
	})
	t.Run("stopped", func(t *testing.T) {
		t.Parallel()
		c := start(t, shared, shell("true"))
		c.wait()
		if err := c.task.Kill(testContext(t), unix.SIGTERM); !errdefs.IsNotFound(err) {
			t.Errorf("kill: %v", err)
		}
		if err := c.task.Pause(testContext(t)); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("pause: %v", err)
		}
		if err := c.task.Start(testContext(t)); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("start: %v", err)
		}
		c.delete()
		if _, err := c.Task(testContext(t), nil); !errdefs.IsNotFound(err) {
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
		c.kill(unix.SIGKILL)
		if got := c.wait(); got != 137 {
			t.Errorf("exit status %d", got)
		}
		c.delete()
	})
	t.Run("delete", func(t *testing.T) {
		t.Parallel()
		c := create(t, shared, probeOf())
		pid := c.pid()
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
	if _, err := c.node.Client().TaskService().Delete(testContext(t), req); err != nil {
		t.Fatal(err)
	}
}

// TestBadProgram: the error must come from Create or Start, and leave nothing.
func TestBadProgram(t *testing.T) {
	t.Parallel()
	w := want{image: busyboxImage, args: []string{"/nonexistent"}}
	c := newContainer(t, shared, w)
	err := c.create(w)
	if err == nil {
		err = c.task.Start(testContext(t))
	}
	if err == nil || !strings.Contains(err.Error(), "/nonexistent") {
		t.Errorf("error: %v", err)
	}
}

// TestAttach reads a running task's output through a second client.
func TestAttach(t *testing.T) {
	t.Parallel()
	w := shell("while read line; do echo got $line; done")
	w.stdin = true
	c := start(t, shared, w)
	fmt.Fprintln(c.stdin, "one")
	c.out.waitFor(t, "got one")
	// The first client goes away without a word.
	c.task.IO().Cancel()
	c.stdin.Close()
	out, stdin := attach(t, c)
	fmt.Fprintln(stdin, "two")
	out.waitFor(t, "got two")
}

// TestNoRunc runs a task through its life on a node on whose PATH a file called
// runc notes that it is executed.
func TestNoRunc(t *testing.T) {
	t.Parallel()
	n := newNode(t, harness.Options{})
	trace := filepath.Join(n.Dir, "runc-was-here")
	trap := fmt.Sprintf("#!/bin/sh\necho \"$@\" >>%s\nexit 1\n", trace)
	if err := os.WriteFile(filepath.Join(n.Bin, "runc"), []byte(trap), 0o700); err != nil {
		t.Fatal(err)
	}
	c := start(t, n, probeOf())
	before := c.probe()
	c.mustExec("true")
	e := c.mustCapture(capture.Request{})
	clone := start(t, n, probeOf())
	clone.mustRestored(e)
	clone.goesOn(before)
	for _, k := range []*container{c, clone} {
		k.kill(unix.SIGKILL)
		k.wait()
		k.delete()
	}
	if calls, err := os.ReadFile(trace); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("runc was executed (%v): %s", err, calls)
	}
}

// TestNothingLeft checks that a deleted container leaves nothing, its shim and
// its network namespace included.
func TestNothingLeft(t *testing.T) {
	t.Parallel()
	n := newNode(t, harness.Options{})
	for _, end := range []string{"kill", "exit"} {
		c := start(t, n, probeOf())
		before := c.probe()
		ns := netns(t, c.pid())
		if end == "kill" {
			e := c.mustCapture(capture.Request{})
			r := start(t, n, probeOf())
			r.mustRestored(e)
			r.goesOn(before)
			cloneNS := netns(t, r.pid())
			r.kill(unix.SIGKILL)
			r.wait()
			r.delete()
			noNetNS(t, cloneNS)
		}
		c.kill(unix.SIGTERM)
		if got := c.wait(); got != 7 {
			t.Errorf("exit status %d", got)
		}
		c.delete()
		noNetNS(t, ns)
		nothingLeft(t, n)
	}
}

// nothingLeft checks that nothing is left of any container of a node, and
// removes what is.
func nothingLeft(t *testing.T, n *harness.Node) {
	t.Helper()
	left, err := n.Settle(context.WithoutCancel(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	if !left.Empty() {
		t.Errorf("something is left:\n%s", left)
		// The next test is not to stumble over it.
		if err := n.Sweep(); err != nil {
			t.Error(err)
		}
	}
}

// noNetNS checks that nothing keeps a network namespace alive.
func noNetNS(t *testing.T, inode uint64) {
	t.Helper()
	eventually(t, func() error {
		holders, err := harness.NetNSHolders(inode)
		if err == nil && len(holders) > 0 {
			return fmt.Errorf("network namespace %d is kept alive by %v", inode, holders)
		}
		return err
	})
}

package integration

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

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
			id := fmt.Sprintf("ctr%d", serial())
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
	id := fmt.Sprintf("ctr%d", serial())
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
				k.Out.WaitFor(t, "ready")
				eventually(t, func() error {
					err := k.Task.Kill(t.Context(), c.sig)
					if err == nil && len(k.Exit) == 0 {
						err = errors.New("it has not exited yet")
					}
					if errdefs.IsNotFound(err) {
						return nil
					}
					return err
				})
			}
			if got := k.Wait(); got != c.want {
				t.Errorf("exit status %d, want %d", got, c.want)
			}
			if s := k.Status(); s != client.Stopped {
				t.Errorf("status after the exit: %s", s)
			}
			if s := k.DeleteTask(); s.ExitCode() != c.want || s.ExitTime().IsZero() {
				t.Errorf("the deletion says %d at %s, want %d", s.ExitCode(), s.ExitTime(), c.want)
			}
		})
	}
}

func TestStdio(t *testing.T) {
	t.Parallel()
	w := shell("echo to stderr >&2; cat")
	w.Stdin = true
	c := start(t, shared, w)
	if _, err := c.Stdin.Write([]byte("a line\n")); err != nil {
		t.Fatal(err)
	}
	c.Out.WaitFor(t, "a line")
	c.Out.WaitFor(t, "to stderr")
	// The end of the input ends cat.
	c.Stdin.Close()
	if err := c.Task.CloseIO(testContext(t), closeStdin); err != nil {
		t.Fatal(err)
	}
	if got := c.Wait(); got != 0 {
		t.Errorf("exit status %d", got)
	}
}

// TestLargeOutput writes more than fits any pipe, and exits at once: none may be lost.
func TestLargeOutput(t *testing.T) {
	t.Parallel()
	c := start(t, shared, shell("head -c 3000000 /dev/zero | tr '\\0' x; echo end"))
	c.Wait()
	c.Task.IO().Wait()
	if out := c.Out.String(); len(out) != 3000004 || !strings.HasSuffix(out, "xend\n") {
		t.Errorf("%d bytes of output", len(out))
	}
}

func TestTerminal(t *testing.T) {
	t.Parallel()
	w := shell("tty; stty -echo; while read cmd; do eval \"$cmd\"; done")
	w.Terminal, w.Stdin = true, true
	c := start(t, shared, w)
	c.Out.WaitFor(t, "/dev/pts/0")
	if err := c.Task.Resize(testContext(t), 123, 45); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(c.Stdin, "stty size")
	c.Out.WaitFor(t, "45 123")
	fmt.Fprintln(c.Stdin, "exit 9")
	if got := c.Wait(); got != 9 {
		t.Errorf("exit status %d", got)
	}
}

// TestBadProgram: the error must come from Create or Start, and leave nothing.
func TestBadProgram(t *testing.T) {
	t.Parallel()
	w := want{Image: busyboxImage, Args: []string{"/nonexistent"}}
	c := newContainer(t, shared, w)
	err := c.Create(w)
	if err == nil {
		err = c.Task.Start(testContext(t))
	}
	if err == nil || !strings.Contains(err.Error(), "/nonexistent") {
		t.Errorf("error: %v", err)
	}
}

// TestAttach reads a running task's output through a second client.
func TestAttach(t *testing.T) {
	t.Parallel()
	w := shell("while read line; do echo got $line; done")
	w.Stdin = true
	c := start(t, shared, w)
	fmt.Fprintln(c.Stdin, "one")
	c.Out.WaitFor(t, "got one")
	// The first client goes away without a word.
	c.Task.IO().Cancel()
	c.Stdin.Close()
	out, stdin := attach(t, c)
	fmt.Fprintln(stdin, "two")
	out.WaitFor(t, "got two")
}

package integration

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint/survey"
	"github.com/containerd-snap/snap/shim/capture"
	"github.com/containerd-snap/snap/test/harness"
)

// examined is what `snapctl doctor CONTAINER` says.
type examined struct {
	PID, Processes int
	Capturable     bool
	Findings       []survey.Finding
}

// examine asks snapctl whether the container can be captured.
func examine(c *container) examined {
	c.T.Helper()
	out, err := c.Node.Snapctl(testContext(c.T), "doctor", c.ID(), "--json")
	var x examined
	if derr := json.Unmarshal([]byte(out.Stdout), &x); derr != nil {
		c.T.Fatal(err, derr)
	}
	// Code 1 says that something stands in the way.
	exit, failed := errors.AsType[*exec.ExitError](err)
	if failed == x.Capturable || failed && exit.ExitCode() != 1 {
		c.T.Errorf("snapctl says %+v, and ends with %v", x, err)
	}
	return x
}

// problem returns the finding that stands in the way; at most one is expected.
func (x examined) problem(t *testing.T) (problem survey.Finding) {
	t.Helper()
	for _, f := range x.Findings {
		if f.Level != survey.Problem {
			continue
		}
		if problem.Words != "" {
			t.Errorf("a second problem: %+v", f)
		}
		problem = f
	}
	return problem
}

// powerful lets the probe do what its holds need.
var powerful = oci.WithAddedCapabilities([]string{"CAP_SYS_ADMIN", "CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN", "CAP_NET_RAW"})

// TestSurvey compares what snapctl says of a container with what its capture does.
func TestSurvey(t *testing.T) {
	t.Parallel()
	accepted := make(chan int, 1)
	outside := listenOutside(t, accepted)
	for name, c := range map[string]struct {
		args []string
		want want
		do   func(t *testing.T, c *container)
		// says is what snapctl says stands in the way, of which resource, and fails
		// what the capture says; all empty if it succeeds.
		says, of, fails string
		// notes is what is worth knowing, though it does not stand in the way.
		notes string
	}{
		"nothing special": {},
		"io_uring":        {args: hold("io_uring"), says: "uses io_uring", of: "anon_inode:[io_uring]", fails: "io_uring"},
		"a perf event":    {args: hold("perf"), says: "a kind that CRIU cannot save", of: "perf_event", fails: "perf_event"},
		"a BPF program":   {args: hold("bpf-prog"), says: "a kind that CRIU cannot save", of: "bpf-prog", fails: "bpf-prog"},
		"userfaultfd":     {args: hold("userfaultfd"), says: "userfaultfd", of: "userfaultfd", fails: "userfaultfd"},
		"a vsock socket":  {args: hold("vsock"), says: "a kind that CRIU cannot save", of: "AF_VSOCK", fails: "family"},
		"an XDP socket":   {args: hold("xdp"), says: "a kind that CRIU cannot save", of: "XDP", fails: "family"},
		"multipath TCP":   {args: []string{"/bin/probe", "-mptcp"}, says: "multipath", of: "MPTCP", fails: "multipath"},
		"a device": {args: hold("fuse"), want: want{Opts: []oci.SpecOpts{oci.WithDevices("/dev/fuse", "/dev/fuse", "rwm")}},
			says: "character device 10:229", of: "/dev/fuse", fails: "character device"},
		"a watched file":         {args: hold("watch-file"), says: "inotify", of: "inotify", fails: "watches a file"},
		"a large deleted file":   {args: hold("deleted-large"), says: "257 MiB", of: "/deleted", fails: "more than the limit"},
		"a deleted image file":   {args: hold("deleted-image")},
		"a namespace of its own": {args: []string{"sh", "-c", "unshare -u sleep 1000 & exec /bin/probe"}, says: "a namespace of its own", of: "uts namespace", fails: "namespace"},
		"an unknown mount":       {args: hold("ramfs"), says: "type ramfs", of: "/mnt", fails: "kind that CRIU cannot save"},
		"a socket of the host": {args: hold("outside"), want: want{Opts: []oci.SpecOpts{bindOutside(outside)}},
			do:   func(*testing.T, *container) { <-accepted },
			says: "outside of the container", of: "UNIX", fails: "outside of the container"},
		"host's pids":   {want: want{Opts: []oci.SpecOpts{hostPIDs}}, says: "pid namespace", fails: "pid namespace"},
		"a debugger":    {do: trace, says: "debugger", of: "traced by process", fails: "a debugger"},
		"left by exec":  {do: leaveBehind},
		"from outside":  {do: enter, says: "came from outside", of: "session", fails: "process"},
		"still in exec": {do: stayInside, notes: "started with exec"},
		"common things": {args: hold("packet,raw,netlink,urandom,lock,deleted-small,memfd,epoll,socketpair,tmpfs,watch-tmpfs")},
		"a terminal":    {want: want{Terminal: true}},
		"a connection":  {args: append([]string{}, hold("connection")...), want: want{Opts: []oci.SpecOpts{oci.WithEnv([]string{"GODEBUG=multipathtcp=0"})}}, notes: "open TCP connection"},
		"a connection, refused": {args: hold("connection"), want: want{Opts: []oci.SpecOpts{oci.WithEnv([]string{"GODEBUG=multipathtcp=0"})}}.Annotate("tcp", "refuse"),
			says: "tcp=refuse", of: "TCP", fails: "holds TCP connections"},
		"a group of processes": {args: []string{"sh", "-c", "sleep 1000 & (sleep 1000 | cat) & exec /bin/probe"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := c.want
			w.Image, w.Args = probeImage, c.args
			if w.Args == nil {
				w.Args = []string{"/bin/probe"}
			}
			w.Opts = append([]oci.SpecOpts{powerful}, w.Opts...)
			k := start(t, shared, w)
			k.Probe()
			if c.do != nil {
				c.do(t, k)
			}
			x := examine(k)
			problem := x.problem(t)
			if !strings.Contains(problem.Words, c.says) || (problem.Words == "") != (c.says == "") || !strings.Contains(problem.Resource, c.of) {
				t.Errorf("snapctl says %+v, want %q of %q", x, c.says, c.of)
			}
			if c.notes != "" && !notes(x, c.notes) {
				t.Errorf("snapctl says %+v, want a note of %q", x, c.notes)
			}
			e, err := k.Capture(capture.Request{})
			if err == nil {
				defer func() {
					if err := openStore(t, shared).Remove(e.Digest); err != nil {
						t.Error(err)
					}
				}()
			}
			switch {
			case c.fails == "" && err != nil:
				t.Errorf("nothing was found, and the capture fails: %v", err)
			case c.fails != "" && err == nil:
				t.Errorf("%q was found, and the capture succeeds", problem.Words)
			case c.fails != "" && !strings.Contains(err.Error(), c.fails):
				t.Errorf("found %q; the capture fails because %v", problem.Words, err)
			}
			if e.Digest != "" && e.Checkpoint.Source.Processes != x.Processes {
				t.Errorf("%d processes were found and %d captured", x.Processes, e.Checkpoint.Source.Processes)
			}
		})
	}
}

func hold(list string) []string { return []string{"/bin/probe", "-hold", list} }

func notes(x examined, text string) bool {
	for _, f := range x.Findings {
		if f.Level == survey.Note && strings.Contains(f.Words, text) {
			return true
		}
	}
	return false
}

// listenOutside makes a Unix socket that is not in any container.
func listenOutside(t *testing.T, accepted chan<- int) (dir string) {
	t.Helper()
	dir = t.TempDir()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", filepath.Join(dir, "socket"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		var held []net.Conn // one that is collected is closed
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			held = append(held, c)
			accepted <- len(held)
		}
	}()
	return dir
}

func bindOutside(dir string) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *specs.Spec) error {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/outside", Type: "bind", Source: dir, Options: []string{"rbind", "rw"}})
		return nil
	}
}

// trace attaches to the program as a debugger does, until the test ends.
func trace(t *testing.T, c *container) {
	t.Helper()
	attached, done := make(chan error), make(chan struct{})
	go func() {
		// Only the thread that attached may detach.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(c.Pid()), 0, 0, 0, 0)
		if errno != 0 {
			attached <- errno
			return
		}
		attached <- nil
		<-done
		unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_INTERRUPT, uintptr(c.Pid()), 0, 0, 0, 0)
		var status unix.WaitStatus
		_, _ = unix.Wait4(c.Pid(), &status, unix.WALL, nil)
		_ = unix.PtraceDetach(c.Pid())
		done <- struct{}{}
	}()
	if err := <-attached; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		done <- struct{}{}
		<-done
	})
}

// leaveBehind lets an exec end whose child goes on.
func leaveBehind(t *testing.T, c *container) {
	t.Helper()
	c.MustExec("sh", "-c", "sleep 1000 </dev/null >/dev/null 2>&1 &")
	eventually(t, func() error {
		pids, err := c.Task.Pids(testContext(t))
		if err == nil && len(pids) != 2 {
			return errors.New("the child is not alone yet")
		}
		return err
	})
}

// enter puts a process into the container that the runtime knows nothing of.
func enter(t *testing.T, c *container) {
	t.Helper()
	cmd := exec.CommandContext(testContext(t), "nsenter", "--target", strconv.Itoa(c.Pid()), "--mount", "--pid", "--uts", "--ipc", "--net",
		"/bin/sh", "-c", "sleep 1000 </dev/null >/dev/null 2>&1 &")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// It ends with the pid namespace. It is in none of the container's cgroups, and
	// not frozen with them: a capture may meet that first.
}

// stayInside leaves an exec running.
func stayInside(t *testing.T, c *container) {
	t.Helper()
	e := c.NewExec(false, "sleep", "1000")
	if err := e.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
}

// TestSurveyOfOthers: of what does not run, snapctl says that and nothing else.
func TestSurveyOfOthers(t *testing.T) {
	t.Parallel()
	n := newNode(t, harness.Options{})
	c := start(t, n, probeOf())
	c.Probe()
	c.Kill(unix.SIGKILL)
	c.Wait()
	for _, id := range []string{c.ID(), "nobody"} {
		out, err := n.Snapctl(testContext(t), "doctor", id)
		if err == nil || out.Stdout != "" || !strings.Contains(out.Stderr, id) {
			t.Errorf("doctor %s: %v, %q", id, err, out)
		}
	}
	if out, _ := n.Snapctl(testContext(t), "doctor", c.ID()); !strings.Contains(out.Stderr, "does not run") {
		t.Errorf("of a task that ended: %q", out.Stderr)
	}
}

package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/shim/capture"
	"github.com/containerd-snap/snap/test/harness"
)

// TestCgroupNamespace: a container with a cgroup namespace of its own sees its
// cgroup as the root, restored as well as booted.
func TestCgroupNamespace(t *testing.T) {
	t.Parallel()
	w := shell("while :; do sleep 1; done", oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.CgroupNamespace}))
	a := start(t, shared, w)
	e := a.MustCapture(capture.Request{})
	b := start(t, shared, w)
	b.MustRestored(e)
	again := b.MustCapture(capture.Request{})
	c := start(t, shared, w)
	c.MustRestored(again)
	for _, x := range []*container{a, b, c} {
		for line := range strings.Lines(x.MustExec("cat", "/proc/1/cgroup")) {
			if !strings.HasSuffix(strings.TrimSpace(line), ":/") {
				t.Errorf("%s sees its cgroup as %s", x.ID(), line)
			}
		}
		x.InOwnCgroup()
	}
}

// TestSignalDuringRestore sends signals while Start finishes a restore: the
// program gets those that it can handle, and SIGKILL ends it, whenever it comes.
func TestSignalDuringRestore(t *testing.T) {
	t.Parallel()
	n := newNode(t, harness.Options{})
	w := shell("trap 'exit 7' TERM; echo ready; while :; do sleep 0.02; done")
	w.ID = "original"
	a := start(t, n, w)
	a.Out.WaitFor(t, "ready")
	a.MustCapture(capture.Request{Stop: true})
	a.Wait()
	a.DeleteTask()
	for i, delay := range []int{0, 5, 15, 30, 50, 100} {
		for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
			w.ID = fmt.Sprintf("clone-%d-%d", i, sig)
			c := create(t, n, w)
			started := make(chan error, 1)
			go func() { started <- c.Task.Start(testContext(t)) }()
			time.Sleep(time.Duration(delay) * time.Millisecond)
			killed := c.Task.Kill(testContext(t), sig)
			err := <-started
			status := c.Wait()
			switch {
			case killed != nil:
				t.Errorf("after %d ms: signal %d: %v", delay, sig, killed)
			case sig == unix.SIGKILL && status != 137,
				sig == unix.SIGTERM && err == nil && status != 7,
				// It came before Start, to a program that did not run.
				sig == unix.SIGTERM && err != nil && status != 143:
				t.Errorf("after %d ms: signal %d: exit status %d, Start says %v", delay, sig, status, err)
			}
			c.DeleteTask()
		}
	}
	nothingLeft(t, n)
}

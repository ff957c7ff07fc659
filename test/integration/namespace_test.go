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
	e := a.mustCapture(capture.Request{})
	b := start(t, shared, w)
	b.mustRestored(e)
	again := b.mustCapture(capture.Request{})
	c := start(t, shared, w)
	c.mustRestored(again)
	for _, x := range []*container{a, b, c} {
		for line := range strings.Lines(x.mustExec("cat", "/proc/1/cgroup")) {
			if !strings.HasSuffix(strings.TrimSpace(line), ":/") {
				t.Errorf("%s sees its cgroup as %s", x.ID(), line)
			}
		}
		x.inOwnCgroup()
	}
}

// TestSignalDuringRestore sends signals while Start finishes a restore: the
// program gets those that it can handle, and SIGKILL ends it, whenever it comes.
func TestSignalDuringRestore(t *testing.T) {
	t.Parallel()
	n := newNode(t, harness.Options{})
	w := shell("trap 'exit 7' TERM; echo ready; while :; do sleep 0.02; done")
	w.id = "original"
	a := start(t, n, w)
	a.out.waitFor(t, "ready")
	a.mustCapture(capture.Request{Stop: true})
	a.wait()
	a.delete()
	for i, delay := range []int{0, 5, 15, 30, 50, 100} {
		for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
			w.id = fmt.Sprintf("clone-%d-%d", i, sig)
			c := create(t, n, w)
			started := make(chan error, 1)
			go func() { started <- c.task.Start(testContext(t)) }()
			time.Sleep(time.Duration(delay) * time.Millisecond)
			killed := c.task.Kill(testContext(t), sig)
			err := <-started
			status := c.wait()
			switch {
			case killed != nil:
				t.Errorf("after %d ms: signal %d: %v", delay, sig, killed)
			case sig == unix.SIGKILL && status != 137,
				sig == unix.SIGTERM && err == nil && status != 7,
				// It came before Start, to a program that did not run.
				sig == unix.SIGTERM && err != nil && status != 143:
				t.Errorf("after %d ms: signal %d: exit status %d, Start says %v", delay, sig, status, err)
			}
			c.delete()
		}
	}
	nothingLeft(t, n)
}

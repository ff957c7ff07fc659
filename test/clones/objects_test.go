package clones

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/shim/capture"
	"github.com/containerd-snap/snap/test/harness"
	"github.com/containerd-snap/snap/test/harness/run"
)

const objectsImage = "localhost/snap/objects:1"

// objectsProgram puts an image with the program of testdata/objects on the shared node.
var objectsProgram = sync.OnceValue(func() error {
	dir, err := os.MkdirTemp("", "snap-objects-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	maker, err := harness.Tool("images")
	if err != nil {
		return err
	}
	busybox, err := harness.Image("busybox")
	if err != nil {
		return err
	}
	sources, err := filepath.Glob("testdata/objects/*.c")
	if err != nil {
		return err
	}
	root, archive := filepath.Join(dir, "root"), filepath.Join(dir, "objects.tar")
	if err := os.MkdirAll(filepath.Join(root, "bin"), 0o755); err != nil {
		return err
	}
	ctx := context.Background()
	for _, args := range [][]string{
		append([]string{"gcc", "-O2", "-pthread", "-static", "-o", filepath.Join(root, "bin", "objects")}, sources...),
		{maker, "-o", archive, "-name", objectsImage, "-from", busybox, "-add", root, "/bin/objects"},
	} {
		if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("make the image with the objects: %w: %s", err, out)
		}
	}
	return shared.Import(ctx, archive)
})

// objects wants a container with the program of testdata/objects and the objects of these names.
func objects(t *testing.T, names ...string) run.Want {
	t.Helper()
	if err := objectsProgram(); err != nil {
		t.Fatal(err)
	}
	return run.Want{
		Image: objectsImage,
		Args:  append([]string{"/bin/objects"}, names...),
		Opts:  []oci.SpecOpts{oci.WithAddedCapabilities([]string{"CAP_SYS_NICE", "CAP_SYS_ADMIN"})},
	}
}

// mustHold has the program check its objects in n rounds. It says how many it had before.
func mustHold(t *testing.T, c *run.Container, n int) {
	t.Helper()
	for range n {
		had := strings.Count(c.Out.String(), "ok ")
		c.Kill(unix.SIGUSR1)
		run.Eventually(t, func() error {
			out := c.Out.String()
			if strings.Contains(out, "wrong: ") {
				t.Fatalf("%s: %s", c.ID(), out)
			}
			if strings.Count(out, "ok ") == had {
				return fmt.Errorf("%s: no round was finished: %q", c.ID(), out)
			}
			return nil
		})
	}
}

// startAtOnce starts n containers at the same time.
func startAtOnce(t *testing.T, n int, w run.Want) []*run.Container {
	t.Helper()
	clones, errs := make([]*run.Container, n), make([]error, n)
	var started sync.WaitGroup
	for i := range clones {
		clones[i] = run.New(t, shared, w)
		started.Go(func() {
			if errs[i] = clones[i].Create(w); errs[i] == nil {
				errs[i] = clones[i].Task.Start(run.Context(t))
			}
		})
	}
	started.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	return clones
}

// TestObjects captures a program that holds objects of a kind, starts three clones at
// once, and captures one of these again. All of them, and the captured program, find each
// object as they themselves left it.
func TestObjects(t *testing.T) {
	t.Parallel()
	for kind, names := range map[string]string{
		"descriptors": "memfd sealed-memfd pipe socketpairs passed-descriptor eventfd nested-epoll signalfd inotify locks pidfd",
		"sockets":     "udp unix-sockets abstract-sockets pending-client netlink",
		"timers":      "timerfd posix-timers interval-timers",
		"shared":      "sysv-shm sysv-sem sysv-msg posix-shm unlinked-shm anonymous-shm",
		"processes":   "zombies stopped groups terminal threads traits",
		"rights":      "seccomp filtered-thread capabilities another-user",
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			w := objects(t, strings.Fields(names)...)
			original := run.Start(t, shared, w)
			original.Out.WaitFor(t, "ready")
			mustHold(t, original, 1)
			e := original.MustCapture(capture.Request{})
			clones := startAtOnce(t, 3, w)
			for i, c := range clones {
				c.MustRestored(e)
				mustHold(t, c, i+1)
			}
			mustHold(t, original, 3)
			again := clones[2].MustCapture(capture.Request{})
			c := run.Start(t, shared, w.Annotate("checkpoint", again.Digest))
			c.MustRestored(again)
			mustHold(t, c, 2)
			mustHold(t, clones[2], 1)
		})
	}
}

// TestObjectsRefused: what CRIU cannot save, or would not save as it is, is refused in
// words that are in docs/troubleshooting.md, and the program goes on.
func TestObjectsRefused(t *testing.T) {
	t.Parallel()
	for name, says := range map[string]string{
		"counting-eventfd": "uses an eventfd as a semaphore",
		"talking-client":   "has sent something, and was not accepted yet",
		"message-queue":    "/queue is open or mapped, and lies outside of the container's mounts",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := run.Start(t, shared, objects(t, name))
			c.Out.WaitFor(t, "ready")
			mustHold(t, c, 1)
			e, err := c.Capture(capture.Request{})
			if err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("checkpoint %s, %v, want an error that says %q", e.Digest, err, says)
			}
			mustHold(t, c, 2)
		})
	}
}

// TestObjectsLost: what a clone loses is what README.md says. When this fails, something
// has got better: say so there.
func TestObjectsLost(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"unread-datagram", "semaphore-undo", "processor"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name == "processor" && runtime.NumCPU() == 1 {
				return // there is nothing to lose
			}
			w := objects(t, name)
			original := run.Start(t, shared, w)
			original.Out.WaitFor(t, "ready")
			mustHold(t, original, 1)
			e := original.MustCapture(capture.Request{})
			clone := run.Start(t, shared, w)
			clone.MustRestored(e)
			clone.Kill(unix.SIGUSR1)
			clone.Out.WaitFor(t, "wrong: "+name)
			mustHold(t, original, 1)
		})
	}
}

package libct

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// The program's first thread belongs to its first goroutine, and so to no other.
//
// libcontainer and this package run goroutines that enter a container's
// namespaces on a thread of their own, which ends with them. The first thread
// does not end: Go parks it. One of them that happened to run there would leave
// it in the container's mount namespace for good, which then keeps the
// container's mounts alive, and makes /proc/self, where everybody looks for
// mounts, show the container's instead of ours.
func init() { runtime.LockOSThread() }

// onThread runs f on a thread of its own, which ends with f.
func onThread(f func() error) error {
	errc := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine.
		runtime.LockOSThread()
		errc <- f()
	}()
	return <-errc
}

// inBundle runs f with the bundle as the working directory of the thread, and so
// of the hooks which f runs: those of a second container in a pod's shim would
// else find themselves in the bundle of the first. It is for a thread that ends
// afterwards.
func inBundle(dir string, f func() error) error {
	// Until then the working directory is the process's.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("give a thread a working directory: %w", err)
	}
	if err := unix.Chdir(dir); err != nil {
		return &os.PathError{Op: "chdir", Path: dir, Err: err}
	}
	return f()
}

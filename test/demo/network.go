package main

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/test/harness"
)

// network identifies a network namespace. The kernel gives the inode number of one
// that is gone to the next, the cookie to none.
type network struct{ inode, cookie uint64 }

// networkAt identifies the network namespace behind a path such as /proc/PID/ns/net.
func networkAt(path string) (network, error) {
	var n network
	ns, err := os.Open(path)
	if err != nil {
		return n, err
	}
	defer ns.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(ns.Fd()), &st); err != nil {
		return n, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	n.inode = st.Ino
	done := make(chan error, 1)
	go func() {
		// The thread ends with the goroutine: it is of no use to others.
		runtime.LockOSThread()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			done <- err
			return
		}
		defer unix.Close(fd)
		n.cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
		done <- err
	}()
	if err := <-done; err != nil {
		return n, fmt.Errorf("identify network namespace %s: %w", path, err)
	}
	return n, nil
}

// noteNetwork remembers a task's network namespace, so that its end can be verified.
func (d *demo) noteNetwork(pid int) error {
	task, err := networkAt(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return err
	}
	own, err := networkAt("/proc/self/ns/net")
	if err != nil {
		return err
	}
	if task == own {
		return fmt.Errorf("the task of process %d has no network namespace of its own", pid)
	}
	d.networks[task] = true
	return nil
}

// networksGone verifies that nobody holds a network namespace that a task had.
func (d *demo) networksGone() error {
	for n := range d.networks {
		holders, err := harness.NetNSHolders(n.inode)
		if err != nil {
			return err
		}
		for _, path := range holders {
			// One that cannot be identified any more has let go meanwhile.
			if held, err := networkAt(path); err == nil && held == n {
				return fmt.Errorf("remove the demo's containers: a network namespace is held by %s", path)
			}
		}
	}
	return nil
}

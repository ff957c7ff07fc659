package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/test/harness"
)

// noteNetwork keeps the identity of a task's network namespace, so that its end
// can be verified.
func (d *demo) noteNetwork(pid int) error {
	path := fmt.Sprintf("/proc/%d/ns/net", pid)
	var task, own unix.Stat_t
	if err := unix.Stat(path, &task); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if err := unix.Stat("/proc/self/ns/net", &own); err != nil {
		return err
	}
	if task.Ino == own.Ino {
		return fmt.Errorf("the task of process %d has no network namespace of its own", pid)
	}
	d.networks[task.Ino] = true
	return nil
}

// setLoopbackUp sets up the loopback device in the network namespace of process
// pid; the kernel then gives it its addresses.
func setLoopbackUp(pid int) error {
	err := harness.InNetNS(pid, func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		ifr, err := unix.NewIfreq("lo")
		if err != nil {
			return err
		}
		ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
		return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
	})
	if err != nil {
		return fmt.Errorf("set up the loopback device of process %d: %w", pid, err)
	}
	return nil
}

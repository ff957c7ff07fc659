package harness

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// The program's first thread belongs to its first goroutine: Go parks it where it would end
// another, and one that InNetNS had used would keep a container's network alive for good.
func init() { runtime.LockOSThread() }

// InNetNS runs fn in the network namespace of the process pid.
func InNetNS(pid int, fn func() error) error {
	return inNetNS(fmt.Sprintf("/proc/%d/ns/net", pid), fn)
}

// inNetNS runs fn in the network namespace that the file at path stands for.
func inNetNS(path string, fn func() error) error {
	errc := make(chan error, 1)
	go func() {
		// The thread is never unlocked: it ends with the goroutine, so that
		// nobody else finds himself in the container's network.
		runtime.LockOSThread()
		ns, err := os.Open(path)
		if err != nil {
			errc <- err
			return
		}
		defer ns.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			errc <- fmt.Errorf("enter network namespace %s: %w", path, err)
			return
		}
		errc <- fn()
	}()
	return <-errc
}

// DialIn connects to a TCP address as seen from inside the network namespace
// of the process pid.
func DialIn(ctx context.Context, pid int, address string) (net.Conn, error) {
	var conn net.Conn
	err := InNetNS(pid, func() (err error) {
		// The address is an IP: without a name to look up and with one address to
		// try, the socket is made on this thread.
		conn, err = (&net.Dialer{FallbackDelay: -1}).DialContext(ctx, "tcp", address)
		return err
	})
	return conn, err
}

// SetLoopbackUp sets up the loopback device in the network namespace of process
// pid; the kernel then gives it its addresses.
func SetLoopbackUp(pid int) error {
	err := InNetNS(pid, func() error {
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

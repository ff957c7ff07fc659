// Package netns does something in another network namespace, and says which
// addresses are there.
package netns

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
)

// Of is where the network namespace of a process is found.
func Of(pid int) string { return "/proc/" + strconv.Itoa(pid) + "/ns/net" }

// Do runs fn on a thread in the network namespace that the file at path stands for. What
// fn opens belongs to that namespace wherever it is used later; what fn lets other goroutines
// do does not happen in it.
func Do(path string, fn func() error) error {
	ns, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("enter a network namespace: %w", err)
	}
	defer ns.Close()
	errc := make(chan error, 1)
	go func() {
		// The thread is never unlocked: it ends with the goroutine, so that nobody
		// else finds himself in the namespace. (Package libct keeps the first thread out of it.)
		runtime.LockOSThread()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			errc <- fmt.Errorf("enter network namespace %s: %w", path, err)
			return
		}
		errc <- fn()
	}()
	return <-errc
}

// Addresses returns the addresses of the namespace, loopback apart, in the kernel's order:
// by interface, and for each in the order in which it got them.
func Addresses(path string) ([]checkpoint.Address, error) {
	var found []checkpoint.Address
	err := Do(path, func() (err error) {
		found, err = addresses()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the network's addresses: %w", err)
	}
	return found, nil
}

// addresses are those of the calling thread's network namespace.
func addresses() ([]checkpoint.Address, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var found []checkpoint.Address
	for _, i := range interfaces {
		if i.Flags&net.FlagLoopback != 0 {
			continue
		}
		all, err := i.Addrs()
		if err != nil {
			return nil, err
		}
		for _, a := range all {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				found = append(found, checkpoint.Address{Interface: i.Name, Address: p.Addr()})
			}
		}
	}
	return found, nil
}

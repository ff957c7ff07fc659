package netlock

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Addresses returns the addresses of the network namespace that the file at path
// stands for.
func Addresses(path string) ([]netip.Addr, error) {
	ns, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the network's addresses: %w", err)
	}
	defer ns.Close()
	var found []netip.Addr
	errc := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good, as in Take
		err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
		if err == nil {
			found, err = addresses()
		}
		errc <- err
	}()
	if err := <-errc; err != nil {
		return nil, fmt.Errorf("read the network's addresses: %w", err)
	}
	return found, nil
}

// addresses are those of the calling thread's network namespace.
func addresses() ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var found []netip.Addr
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			found = append(found, p.Addr())
		}
	}
	return found, nil
}

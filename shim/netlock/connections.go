package netlock

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Connection is a TCP connection that a process holds.
type Connection struct {
	Local, Remote netip.AddrPort
	socket        int
}

// String writes it as `10.0.0.2:80 -> 10.0.0.9:51234`.
func (c Connection) String() string { return c.Local.String() + " -> " + c.Remote.String() }

// Connections are those of a task. They are held open: Close lets go of them.
type Connections []Connection

// Find returns the TCP connections of processes that stand still, in the order of
// their addresses. What waits in the queue of a listening socket is none of them.
func Find(pids []int) (_ Connections, retErr error) {
	var found Connections
	defer func() {
		if retErr != nil {
			retErr = errors.Join(retErr, found.Close())
		}
	}()
	seen := map[string]bool{}
	for _, pid := range pids {
		of, err := openConnections(pid, seen)
		found = append(found, of...)
		// A process that has ended has none.
		if err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("find the connections of process %d: %w", pid, err)
		}
	}
	slices.SortFunc(found, func(a, b Connection) int { return strings.Compare(a.String(), b.String()) })
	return found, nil
}

// openConnections opens the connections of one process that are not yet seen.
func openConnections(pid int, seen map[string]bool) (found Connections, err error) {
	dir := "/proc/" + strconv.Itoa(pid) + "/fd"
	fds, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(process)
	for _, fd := range fds {
		// The link names the socket, which several descriptors may stand for.
		link, err := os.Readlink(filepath.Join(dir, fd.Name()))
		if err != nil || !strings.HasPrefix(link, "socket:") || seen[link] {
			continue
		}
		seen[link] = true
		n, err := strconv.Atoi(fd.Name())
		if err != nil {
			return found, err
		}
		socket, err := unix.PidfdGetfd(process, n, 0)
		if err != nil {
			return found, err
		}
		c, ok, err := connectionOf(socket)
		if err != nil || !ok {
			unix.Close(socket)
		}
		if err != nil {
			return found, err
		}
		if ok {
			found = append(found, c)
		}
	}
	return found, nil
}

// connectionOf says what a socket connects; ok is false for one that does not.
func connectionOf(socket int) (c Connection, ok bool, err error) {
	protocol, err := unix.GetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil {
		return c, false, err
	}
	domain, err := unix.GetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil || protocol != unix.IPPROTO_TCP || domain != unix.AF_INET && domain != unix.AF_INET6 {
		return c, false, err
	}
	local, err := unix.Getsockname(socket)
	if err != nil {
		return c, false, err
	}
	remote, err := unix.Getpeername(socket)
	if errors.Is(err, unix.ENOTCONN) {
		return c, false, nil
	}
	return Connection{Local: addrPort(local), Remote: addrPort(remote), socket: socket}, err == nil, err
}

func addrPort(a unix.Sockaddr) netip.AddrPort {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
	}
	return netip.AddrPort{}
}

// Detach makes the connections' ends silent: when their processes end, the peers
// are not told (TCP_REPAIR, which CRIU uses too). What it did ends with
// the sockets.
func (cs Connections) Detach() error {
	for _, c := range cs {
		if err := unix.SetsockoptInt(c.socket, unix.IPPROTO_TCP, unix.TCP_REPAIR, 1); err != nil {
			return fmt.Errorf("detach connection %s: %w", c, err)
		}
	}
	return nil
}

// Close lets go of the connections.
func (cs Connections) Close() error {
	var errs []error
	for _, c := range cs {
		errs = append(errs, unix.Close(c.socket))
	}
	return errors.Join(errs...)
}

// String lists the connections.
func (cs Connections) String() string {
	words := make([]string, len(cs))
	for i, c := range cs {
		words[i] = c.String()
	}
	return strings.Join(words, ", ")
}

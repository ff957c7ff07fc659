// Package rebind gives a restored program its sockets at the address of the new container,
// where the program had bound them to the captured container's own.
//
// CRIU reads which sockets to make, and where to bind them, before the restored container's
// first process exists. Networks are attached later, to that process. So the sockets are made
// here, in the new container's network namespace, with the options that the images tell of and
// bound to nothing; CRIU inherits them, and installs them as the program's; and when Start
// says that the network is complete, they are bound, listen, or are connected, before the
// restored program runs.
//
// It has no locks: Sockets belong to one caller.
package rebind

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/opencontainers/selinux/go-selinux"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/criu"
	"github.com/containerd-snap/snap/shim/inherit"
	"github.com/containerd-snap/snap/shim/netns"
)

// Sockets are sockets that wait for their addresses. Nil stands for none.
type Sockets struct {
	network  string
	captured []checkpoint.Address
	all      []socket
}

type socket struct {
	criu.Socket
	file *os.File
}

// Own returns those of the sockets in the images in dir that are bound to one of the
// captured container's addresses. TCP connections are not among them: they cannot be
// without the very address that they had. Neither are raw sockets, which have options that the images alone know.
func Own(dir string, addresses []checkpoint.Address) ([]criu.Socket, error) {
	all, err := criu.Sockets(dir)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(s criu.Socket) bool {
		return s.Type == unix.SOCK_RAW || s.Peculiar || s.Local.Port() == 0 || s.Protocol == unix.IPPROTO_TCP && s.Remote.Port() != 0 || !has(addresses, s.Local.Addr().Unmap())
	}), nil
}

// Make makes sockets in the network namespace that the file at network stands for, for the
// processes that have this SELinux label. captured are the addresses of the captured container.
func Make(network, label string, captured []checkpoint.Address, sockets []criu.Socket) (_ *Sockets, retErr error) {
	s := &Sockets{network: network, captured: captured}
	defer func() {
		if retErr != nil {
			s.Close()
			retErr = fmt.Errorf("make the program's sockets: %w", retErr)
		}
	}()
	err := netns.Do(network, func() error {
		// It holds for this thread, which ends.
		if label != "" {
			if err := selinux.SetSocketLabel(label); err != nil {
				return err
			}
		}
		for _, one := range sockets {
			f, err := create(one)
			if err != nil {
				return fmt.Errorf("%s: %w", one.Local, err)
			}
			s.all = append(s.all, socket{one, f})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i := range s.all {
		if s.all[i].file, err = inherit.Raise(s.all[i].file); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// create makes a socket with its options, bound to nothing.
func create(s criu.Socket) (*os.File, error) {
	fd, err := unix.Socket(s.Family, s.Type|unix.SOCK_CLOEXEC, s.Protocol)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "socket "+s.Local.String())
	for _, o := range s.Options {
		if err := set(fd, o); err != nil {
			f.Close()
			return nil, fmt.Errorf("set option %d:%d: %w", o.Level, o.Name, err)
		}
	}
	return f, nil
}

func set(fd int, o criu.SocketOption) error {
	switch {
	case o.Time != nil:
		return unix.SetsockoptTimeval(fd, o.Level, o.Name, o.Time)
	case o.Linger != nil:
		return unix.SetsockoptLinger(fd, o.Level, o.Name, o.Linger)
	}
	return unix.SetsockoptInt(fd, o.Level, o.Name, o.Value)
}

// Keys are the names under which CRIU finds the sockets, by their numbers in the images.
func (s *Sockets) Keys() map[uint32]string {
	keys := map[uint32]string{}
	if s != nil {
		for _, one := range s.all {
			keys[one.ID] = key(one)
		}
	}
	return keys
}

func key(s socket) string { return fmt.Sprintf("snap-socket-%d", s.ID) }

// Inherit lists the sockets for CRIU's configuration.
func (s *Sockets) Inherit() []criu.InheritFD {
	var all []criu.InheritFD
	if s != nil {
		for _, one := range s.all {
			all = append(all, criu.InheritFD{FD: int(one.file.Fd()), Key: key(one)})
		}
	}
	return all
}

// Files are the sockets, in the order of Inherit.
func (s *Sockets) Files() []*os.File {
	var all []*os.File
	if s != nil {
		for _, one := range s.all {
			all = append(all, one.file)
		}
	}
	return all
}

// Bind puts the sockets where the network's addresses are now. What cannot be
// where it was, or in its place, is an error that says so.
func (s *Sockets) Bind() error {
	if s == nil || len(s.all) == 0 {
		return nil
	}
	now, err := netns.Addresses(s.network)
	if err != nil {
		return err
	}
	return netns.Do(s.network, func() error {
		for _, one := range s.all {
			if err := one.bind(s.captured, now); err != nil {
				return fmt.Errorf("the program's socket at %w", err)
			}
		}
		return nil
	})
}

func (s socket) bind(captured, now []checkpoint.Address) error {
	fd := int(s.file.Fd())
	local, err := moved(s.Local, captured, now)
	if err != nil {
		return err
	}
	fail := func(doing string, err error) error {
		return fmt.Errorf("%s: %s %s: %w", s.Local, doing, local, err)
	}
	if s.Device != "" {
		if err := unix.BindToDevice(fd, s.Device); err != nil {
			return fail("bind it to interface "+s.Device+" and", err)
		}
	}
	if err := s.bindTo(fd, local); err != nil {
		return fail("bind to", err)
	}
	if s.Listening {
		if err := unix.Listen(fd, s.Backlog); err != nil {
			return fail("listen at", err)
		}
	}
	if s.Remote.Port() != 0 {
		remote := s.Remote
		if has(captured, remote.Addr().Unmap()) {
			if remote, err = moved(remote, captured, now); err != nil {
				return err
			}
		}
		a, err := s.sockaddr(remote)
		if err == nil {
			err = unix.Connect(fd, a)
		}
		if err != nil {
			return fail("connect to "+remote.String()+" from", err)
		}
	}
	_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, s.Flags&^unix.O_ACCMODE)
	return err
}

// bindTo binds a socket without its owner's consent to share the address, but for
// what the end of an earlier connection leaves of it.
func (s socket) bindTo(fd int, local netip.AddrPort) error {
	a, err := s.sockaddr(local)
	if err != nil {
		return err
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, number(s.ReuseAddress || s.Protocol == unix.IPPROTO_TCP)),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, number(s.ReusePort)),
		// An IPv6 address that is being looked at for duplicates can be bound to only so.
		unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_FREEBIND, 1),
		s.onlyV6(fd),
	)
	if err != nil {
		return err
	}
	if err := unix.Bind(fd, a); err != nil {
		return err
	}
	return unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_FREEBIND, number(s.FreeBind))
}

// moved is where an address and port of the captured container are now.
func moved(from netip.AddrPort, captured, now []checkpoint.Address) (netip.AddrPort, error) {
	a, err := successor(from.Addr().Unmap(), captured, now)
	if err != nil {
		return from, err
	}
	if from.Addr().Is4In6() {
		a = netip.AddrFrom16(a.As16())
	}
	return netip.AddrPortFrom(a, from.Port()), nil
}

func (s socket) onlyV6(fd int) error {
	if s.Family != unix.AF_INET6 {
		return nil
	}
	return unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_V6ONLY, number(s.V6Only))
}

func (s socket) sockaddr(a netip.AddrPort) (unix.Sockaddr, error) {
	if s.Family == unix.AF_INET {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}, nil
	}
	to := &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
	if s.Scope != "" && a.Addr().IsLinkLocalUnicast() {
		i, err := unix.NewIfreq(s.Scope)
		if err != nil {
			return nil, err
		}
		if err := unix.IoctlIfreq(int(s.file.Fd()), unix.SIOCGIFINDEX, i); err != nil {
			return nil, fmt.Errorf("interface %s: %w", s.Scope, err)
		}
		to.ZoneId = i.Uint32()
	}
	return to, nil
}

// Settle gives the restored sockets the option that they were bound without.
func (s *Sockets) Settle() error {
	if s == nil {
		return nil
	}
	var errs []error
	for _, one := range s.all {
		errs = append(errs, unix.SetsockoptInt(int(one.file.Fd()), unix.SOL_SOCKET, unix.SO_REUSEADDR, number(one.ReuseAddress)))
	}
	return errors.Join(errs...)
}

// Close lets go of the sockets; those that the program has live on. It may be called
// twice, and on nil.
func (s *Sockets) Close() {
	if s == nil {
		return
	}
	for _, one := range s.all {
		one.file.Close()
	}
	s.all = nil
}

func number(on bool) int {
	if on {
		return 1
	}
	return 0
}

package rebind

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint/criu"
	"github.com/containerd-snap/snap/shim/netns"
)

// Guard keeps the places at which CRIU is going to make listening sockets. Nil keeps none.
type Guard struct{ files []*os.File }

// ErrTaken is returned where somebody else listens at a place.
var ErrTaken = errors.New("somebody else listens there")

// Keep takes the places of the listening sockets in the images in dir, in a network that others
// use, too. CRIU would not notice that one is taken by a program that it restored before: it
// lets its sockets share their address for as long as it makes them, and the kernel remembers
// that of the port (in inet_csk_get_port). Both programs would listen, and get connections at
// random. The places are kept until Close, so that of two restores at once one fails; CRIU's
// sockets may share them.
func Keep(network, dir string) (_ *Guard, retErr error) {
	all, err := criu.Sockets(dir)
	if err != nil {
		return nil, err
	}
	g := &Guard{}
	defer func() {
		if retErr != nil {
			g.Close()
		}
	}()
	return g, netns.Do(network, func() error {
		for _, s := range all {
			if !s.Listening || s.ReusePort || s.Device != "" {
				continue
			}
			if err := g.keep(socket{Socket: s}); err != nil {
				return err
			}
		}
		return nil
	})
}

// keep listens at the place of s. Whether the address exists is CRIU's business.
func (g *Guard) keep(s socket) error {
	fd, err := unix.Socket(s.Family, s.Type|unix.SOCK_CLOEXEC, s.Protocol)
	if err != nil {
		return err
	}
	s.file = os.NewFile(uintptr(fd), "place "+s.Local.String())
	g.files = append(g.files, s.file)
	err = s.bindTo(fd, s.Local)
	if err == nil {
		// Only here does the kernel look at who else listens.
		err = unix.Listen(fd, 0)
	}
	if errors.Is(err, unix.EADDRINUSE) {
		return fmt.Errorf("%s: %w: address already in use; stop the other program, or give the container a network of its own", place(s.Local), ErrTaken)
	}
	if err != nil {
		return fmt.Errorf("keep %s: %w", place(s.Local), err)
	}
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
}

func place(a netip.AddrPort) string { return "the program's socket at " + a.String() }

// Close lets go of the places. It may be called twice, and on nil.
func (g *Guard) Close() {
	if g == nil {
		return
	}
	for _, f := range g.files {
		f.Close()
	}
	g.files = nil
}

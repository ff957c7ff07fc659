package manager

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/errdefs"
)

// socket is one that the server is to inherit.
type socket struct {
	address  string
	listener *net.UnixListener
	file     *os.File
}

// listen makes the socket of a group of containers. AlreadyExists, with its
// address, if a server answers on it.
func listen(ctx context.Context, dir, containerd, group string, debug bool) (*socket, error) {
	address, err := shim.CreateSocketAddress(ctx, dir, containerd, group, debug)
	if err != nil {
		return nil, err
	}
	l, err := shim.NewSocket(address)
	if shim.SocketEaddrinuse(err) {
		if !debug && shim.CanConnect(address) {
			return &socket{address: address}, fmt.Errorf("shim of %s: %w", group, errdefs.ErrAlreadyExists)
		}
		// Left by a server that was killed.
		if err := shim.RemoveSocket(address); err != nil {
			return nil, fmt.Errorf("remove the socket of a dead shim: %w", err)
		}
		l, err = shim.NewSocket(address)
	}
	if err != nil {
		return nil, fmt.Errorf("make the shim's socket %s: %w", address, err)
	}
	f, err := l.File()
	if err != nil {
		l.Close()
		return nil, err
	}
	return &socket{address: address, listener: l, file: f}, nil
}

// sockets are those that one server inherits.
type sockets []*socket

// close lets go of the sockets, which live on in the server. If there is none,
// they are removed.
func (s sockets) close(remove bool) {
	for _, k := range s {
		k.listener.SetUnlinkOnClose(remove)
		k.listener.Close()
		if remove {
			_ = shim.RemoveSocket(k.address)
		}
		k.file.Close()
	}
}

// removeDeadSockets removes the sockets of a server that was killed, which could
// not do it. Those of a pod's server that still serves others stay.
func removeDeadSockets(ctx context.Context, bundle, id string) {
	// containerd's shim package, which parses the command line and keeps the
	// socket directory as a link in the bundle, has no function for either.
	containerd := flag.Lookup("address")
	if containerd == nil {
		return
	}
	dir, err := os.Readlink(filepath.Join(bundle, "s"))
	if err != nil {
		dir = filepath.Join(defaults.DefaultStateDir, "s")
	}
	group, err := groupOf(bundle, id)
	if err != nil {
		return
	}
	for _, debug := range []bool{false, true} {
		address, err := shim.CreateSocketAddress(ctx, dir, containerd.Value.String(), group, debug)
		if err == nil && !shim.CanConnect(address) {
			_ = shim.RemoveSocket(address)
		}
	}
}

package start

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/criu"
	"github.com/containerd-snap/snap/oci/spec"
	"github.com/containerd-snap/snap/shim/libct"
	"github.com/containerd-snap/snap/shim/netlock"
	"github.com/containerd-snap/snap/shim/netns"
	"github.com/containerd-snap/snap/shim/rebind"
)

// errUnsuited is a restore that failed for a reason that says nothing against the
// checkpoint: it is not counted as a failure of it.
var errUnsuited = errors.New("the container's network does not offer what the checkpoint needs")

// connections are the TCP connections of a task that stands still, with its network
// silenced.
type connections struct {
	lock *netlock.Lock
	open netlock.Connections
}

// holdConnections does with the connections of a frozen container what its
// setting says. Nil if they are no part of the checkpoint.
func (i *Init) holdConnections(l *live) (_ *connections, retErr error) {
	if i.settings.TCP == spec.TCPClose {
		return nil, nil
	}
	c := &connections{}
	defer func() {
		if retErr != nil {
			retErr = errors.Join(retErr, c.letGo())
		}
	}()
	var err error
	if i.settings.TCP == spec.TCPEstablished {
		if !ownNetwork(i.oci) {
			return nil, fmt.Errorf("the container uses the host's network, whose connections cannot be saved: use annotation %stcp=%s or %s: %w",
				spec.Prefix, spec.TCPClose, spec.TCPRefuse, errdefs.ErrFailedPrecondition)
		}
		if c.lock, err = netlock.Take(netns.Of(l.p.PID())); err != nil {
			return nil, err
		}
	}
	pids, err := l.c.PIDs()
	if err != nil {
		return nil, err
	}
	if c.open, err = netlock.Find(pids); err != nil {
		return nil, err
	}
	if i.settings.TCP == spec.TCPRefuse && len(c.open) > 0 {
		return nil, fmt.Errorf("the program holds TCP connections: %s; close them, or allow them by annotation %stcp=%s (they are left out) or %s (they are saved): %w",
			c.open, spec.Prefix, spec.TCPClose, spec.TCPEstablished, errdefs.ErrFailedPrecondition)
	}
	return c, nil
}

// describe lists the connections for the checkpoint's manifest.
func (c *connections) describe() []checkpoint.Connection {
	if c == nil {
		return nil
	}
	var all []checkpoint.Connection
	for _, o := range c.open {
		all = append(all, checkpoint.Connection{Local: o.Local, Remote: o.Remote})
	}
	return all
}

// detach keeps the peers from being told of the task's end.
func (c *connections) detach() error {
	if c == nil {
		return nil
	}
	return c.open.Detach()
}

// letGo lets the network speak again.
func (c *connections) letGo() error {
	if c == nil {
		return nil
	}
	err := errors.Join(c.lock.Release(), c.open.Close())
	c.open = nil
	return err
}

// lockNetwork silences the network that connections are to be restored in: until
// they are there, the kernel would tell their peers that they do not exist.
func (p *plan) lockNetwork(cs libct.Spec) (err error) {
	if len(p.connections) == 0 {
		return nil
	}
	if !ownNetwork(cs.OCI) {
		return fmt.Errorf("%w: its connections cannot be restored in the host's network", errUnsuited)
	}
	p.lock, err = netlock.Take(p.network)
	return err
}

// ownNetwork says that a container does not use the host's network.
func ownNetwork(oci *specs.Spec) bool {
	return slices.ContainsFunc(oci.Linux.Namespaces, func(ns specs.LinuxNamespace) bool { return ns.Type == specs.NetworkNamespace })
}

// networkOf is the path of the network namespace that a container is restored in.
func networkOf(cs libct.Spec) string {
	for _, ns := range cs.OCI.Linux.Namespaces {
		if ns.Type == specs.NetworkNamespace {
			return cmp.Or(ns.Path, cs.NetNS)
		}
	}
	return "/proc/self/ns/net"
}

// settleNetwork checks that the container has got the addresses that connections need,
// and gives the program's other sockets theirs. What was attached to it came after Create. The
// guard, which may be nil, keeps the places of the sockets that CRIU makes until it has.
func (p *plan) settleNetwork() (*rebind.Guard, error) {
	if len(p.connections) > 0 {
		have, err := netns.Addresses(p.network)
		if err != nil {
			return nil, err
		}
		for _, c := range p.connections {
			local := c.Local.Addr().WithZone("")
			if !local.IsLoopback() && !slices.ContainsFunc(have, func(a checkpoint.Address) bool { return a.Address == local }) {
				return nil, fmt.Errorf("%w: connection %s needs the address %s; attach it, or start with annotation %stcp=%s",
					errUnsuited, c, local, spec.Prefix, spec.TCPClose)
			}
		}
	}
	if err := p.sockets.Bind(); err != nil {
		return nil, fmt.Errorf("%w: %w", errUnsuited, err)
	}
	if !p.sharesNetwork {
		return nil, nil
	}
	guard, err := rebind.Keep(p.network, p.images)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnsuited, err)
	}
	return guard, nil
}

// ownAddresses are those of the captured container's network, if a socket in the images
// is bound to one.
func ownAddresses(l *live, images string) ([]checkpoint.Address, error) {
	all, err := netns.Addresses(netns.Of(l.p.PID()))
	if err != nil {
		return nil, err
	}
	own, err := rebind.Own(images, all)
	if len(own) == 0 {
		all = nil
	}
	return all, err
}

// lendSockets makes the sockets that follow the container to its address, and tells CRIU
// of them.
func (p *plan) lendSockets(cs libct.Spec) error {
	captured := p.entry.Checkpoint.Addresses
	if len(captured) == 0 {
		return nil
	}
	own, err := rebind.Own(p.images, captured)
	if err != nil {
		return err
	}
	if p.sockets, err = rebind.Make(p.network, cs.OCI.Process.SelinuxLabel, captured, own); err != nil {
		return err
	}
	p.criu.InheritFD = append(p.criu.InheritFD, p.sockets.Inherit()...)
	return criu.LendSockets(p.images, p.sockets.Keys())
}

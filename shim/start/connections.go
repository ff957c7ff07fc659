package start

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/oci/spec"
	"github.com/containerd-snap/snap/shim/libct"
	"github.com/containerd-snap/snap/shim/netlock"
)

// errUnsuited is a restore that failed for a reason that says nothing against the
// checkpoint: it is not counted as a failure of it.
var errUnsuited = errors.New("the container does not offer what the checkpoint's connections need")

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
		if c.lock, err = netlock.Take("/proc/" + strconv.Itoa(l.p.PID()) + "/ns/net"); err != nil {
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
func (p *plan) lockNetwork(cs libct.Spec) error {
	if len(p.connections) == 0 {
		return nil
	}
	if !ownNetwork(cs.OCI) {
		return fmt.Errorf("%w: it uses the host's network", errUnsuited)
	}
	p.network = cs.NetNS
	for _, ns := range cs.OCI.Linux.Namespaces {
		if ns.Type == specs.NetworkNamespace && ns.Path != "" {
			p.network = ns.Path
		}
	}
	var err error
	p.lock, err = netlock.Take(p.network)
	return err
}

// ownNetwork says that a container does not use the host's network.
func ownNetwork(oci *specs.Spec) bool {
	return slices.ContainsFunc(oci.Linux.Namespaces, func(ns specs.LinuxNamespace) bool { return ns.Type == specs.NetworkNamespace })
}

// checkNetwork says whether the container has got the addresses that connections
// need. What was attached to it came after Create.
func (p *plan) checkNetwork() error {
	if len(p.connections) == 0 {
		return nil
	}
	have, err := netlock.Addresses(p.network)
	if err != nil {
		return err
	}
	for _, c := range p.connections {
		if !slices.Contains(have, c.Local.Addr().WithZone("")) {
			return fmt.Errorf("%w: connection %s needs the address %s; attach it, or start with annotation %stcp=%s",
				errUnsuited, c, c.Local.Addr(), spec.Prefix, spec.TCPClose)
		}
	}
	return nil
}

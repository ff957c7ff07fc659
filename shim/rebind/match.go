package rebind

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/containerd-snap/snap/checkpoint"
)

// ErrNoAddress is returned for an address of the captured container in whose place none of
// the new container's stands, or not one alone.
var ErrNoAddress = errors.New("the container has no address in its place")

// successor says which address of the new container stands in the place of one of the captured
// container. An address that is still there stands for itself. The others pair off within their
// kind (IPv4, IPv6, link-local IPv6): on an interface of the same name in their order, if there
// are as many there as there were; and where the captured network had one and the new one has
// one, whatever the interfaces are called. Nothing is guessed beyond that.
func successor(addr netip.Addr, captured, now []checkpoint.Address) (netip.Addr, error) {
	if has(now, addr) {
		return addr, nil
	}
	there, here := others(addr, captured, now), others(addr, now, captured)
	i := slices.IndexFunc(there, func(a checkpoint.Address) bool { return a.Address == addr })
	if i < 0 {
		return netip.Addr{}, fmt.Errorf("%s: %w: the captured container did not have it either", addr, ErrNoAddress)
	}
	was := there[i]
	thereOn, hereOn := on(was.Interface, there), on(was.Interface, here)
	switch {
	case len(thereOn) == len(hereOn):
		return hereOn[slices.Index(thereOn, was)].Address, nil
	case len(there) == 1 && len(here) == 1:
		return here[0].Address, nil
	case len(here) == 0:
		return netip.Addr{}, fmt.Errorf("%s: %w: it has none of the kind; attach a network before the start", was, ErrNoAddress)
	}
	return netip.Addr{}, fmt.Errorf("%s: %w that alone could be meant: the captured container had %s, this one has %s; let the program use all addresses (0.0.0.0, ::), or give the container as many on an interface of that name",
		was, ErrNoAddress, list(there), list(here))
}

// others are the addresses of one network that are of addr's kind and not in the other
// network, too.
func others(addr netip.Addr, of, other []checkpoint.Address) []checkpoint.Address {
	return slices.DeleteFunc(slices.Clone(of), func(a checkpoint.Address) bool {
		return kind(a.Address) != kind(addr) || has(other, a.Address)
	})
}

func on(name string, of []checkpoint.Address) []checkpoint.Address {
	return slices.DeleteFunc(slices.Clone(of), func(a checkpoint.Address) bool { return a.Interface != name })
}

func has(addresses []checkpoint.Address, a netip.Addr) bool {
	return slices.ContainsFunc(addresses, func(one checkpoint.Address) bool { return one.Address == a })
}

// kind tells addresses apart that cannot stand for each other.
func kind(a netip.Addr) int {
	switch {
	case a.Is4():
		return 4
	case a.IsLinkLocalUnicast():
		return 0xfe80
	}
	return 6
}

func list(of []checkpoint.Address) string {
	words := make([]string, len(of))
	for i, a := range of {
		words[i] = a.String()
	}
	return strings.Join(words, ", ")
}

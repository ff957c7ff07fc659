package rebind

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/containerd-snap/snap/checkpoint"
)

// network reads "eth0 10.0.0.2 fd00::2, eth1 10.1.0.2".
func network(text string) []checkpoint.Address {
	var all []checkpoint.Address
	for part := range strings.SplitSeq(text, ",") {
		words := strings.Fields(part)
		for i, w := range words {
			if i > 0 {
				all = append(all, checkpoint.Address{Interface: words[0], Address: netip.MustParseAddr(w)})
			}
		}
	}
	return all
}

func TestSuccessor(t *testing.T) {
	for _, tc := range []struct{ name, captured, now, addr, want, says string }{
		{"another address", "eth0 10.0.0.2", "eth0 10.0.0.3", "10.0.0.2", "10.0.0.3", ""},
		{"the same", "eth0 10.0.0.2", "eth0 10.0.0.2 10.0.0.3", "10.0.0.2", "10.0.0.2", ""},
		{"the same on another interface", "eth0 10.0.0.2", "eth0 10.0.0.3, net1 10.0.0.2", "10.0.0.2", "10.0.0.2", ""},
		{"another interface", "eth0 10.0.0.2", "net0 10.0.0.3", "10.0.0.2", "10.0.0.3", ""},
		{"families apart", "eth0 10.0.0.2 fd00::2 fe80::2", "eth0 10.0.0.3 fd00::3 fe80::3", "fd00::2", "fd00::3", ""},
		{"link-local apart", "eth0 10.0.0.2 fd00::2 fe80::2", "eth0 10.0.0.3 fd00::3 fe80::3", "fe80::2", "fe80::3", ""},
		{"in their order", "eth0 10.0.0.2 10.0.0.9", "eth0 10.1.0.7 10.1.0.5", "10.0.0.9", "10.1.0.5", ""},
		{"by interface", "eth0 10.0.0.2, net1 10.5.0.2", "net1 10.6.0.2, eth0 10.1.0.2", "10.5.0.2", "10.6.0.2", ""},
		{"another interface came", "eth0 10.0.0.2", "eth0 10.0.0.3, net1 10.5.0.3", "10.0.0.2", "10.0.0.3", ""},
		{"more than there were", "eth0 10.0.0.2", "eth0 10.0.0.3 10.0.0.4", "10.0.0.2", "", "10.0.0.3 (eth0), 10.0.0.4 (eth0)"},
		{"fewer than there were", "eth0 10.0.0.2 10.0.0.3", "eth0 10.0.0.4", "10.0.0.2", "", "that alone could be meant"},
		{"one of two changed", "eth0 10.0.0.2 10.0.0.3", "eth0 10.0.0.3 10.0.0.4", "10.0.0.2", "10.0.0.4", ""},
		{"interfaces renamed", "eth0 10.0.0.2, eth1 10.0.1.2", "a 10.0.0.3, b 10.0.1.3", "10.0.0.2", "", "this one has 10.0.0.3 (a), 10.0.1.3 (b)"},
		{"no address", "eth0 10.0.0.2", "", "10.0.0.2", "", "it has none of the kind"},
		{"other family only", "eth0 10.0.0.2", "eth0 fd00::3 fe80::1", "10.0.0.2", "", "it has none of the kind"},
		{"never there", "eth0 10.0.0.2", "eth0 10.0.0.3", "10.0.0.77", "", "did not have it either"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := successor(netip.MustParseAddr(tc.addr), network(tc.captured), network(tc.now))
			if tc.want == "" {
				if !errors.Is(err, ErrNoAddress) || !strings.Contains(err.Error(), tc.says) {
					t.Errorf("%v, %v", got, err)
				}
				return
			}
			if err != nil || got.String() != tc.want {
				t.Errorf("%v, %v, want %s", got, err, tc.want)
			}
		})
	}
}

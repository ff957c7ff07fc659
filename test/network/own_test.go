package network

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/shim/capture"
	"github.com/containerd-snap/snap/test/harness"
	"github.com/containerd-snap/snap/test/harness/run"
)

// endpoints wants a container that runs the endpoints, with a socket that is connected to
// the LAN's own address.
func endpoints() run.Want {
	return run.Want{Image: endpointsImage, Args: []string{"/bin/endpoints", "-peer", "10.96.0.254:7013"}}
}

// lan is one with both families. Its own addresses are 10.96.0.254 and fd96::fe.
func lan(t *testing.T) *run.LAN {
	t.Helper()
	l := run.NewLAN(t, "10.96.0.254/24")
	if err := addSix(l.PID, "br0", "fd96::fe/64"); err != nil {
		t.Fatal(err)
	}
	return l
}

// addSix gives an interface in the network of pid an IPv6 address that can be used at once.
func addSix(pid int, name, address string) error {
	return harness.InNetNS(pid, func() error {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		a, err := netlink.ParseAddr(address)
		if err != nil {
			return err
		}
		a.Flags = unix.IFA_F_NODAD
		return netlink.AddrAdd(link, a)
	})
}

// startAt starts a container at 10.96.0.N and fd96::N of a LAN. What it returns takes it out.
func startAt(t *testing.T, l *run.LAN, w run.Want, n int) (*run.Container, func()) {
	t.Helper()
	c := run.Create(t, shared, w)
	detach, err := attach(l, c, n)
	if err == nil {
		err = c.Task.Start(run.Context(t))
	}
	if err != nil {
		t.Fatal(err)
	}
	return c, detach
}

func attach(l *run.LAN, c *run.Container, n int) (detach func(), err error) {
	if detach, err = l.Attach(c.Pid(), fmt.Sprintf("10.96.0.%d/24", n), nil); err != nil {
		return nil, err
	}
	var name string
	err = harness.InNetNS(c.Pid(), func() error {
		links, err := net.Interfaces()
		for _, link := range links {
			if link.Flags&net.FlagLoopback == 0 {
				name = link.Name
			}
		}
		return err
	})
	return detach, errors.Join(err, addSix(c.Pid(), name, fmt.Sprintf("fd96::%x/64", n)))
}

// answersAt checks that endpoints in a LAN have each of their sockets at 10.96.0.N, and answer
// there.
func answersAt(t *testing.T, l *run.LAN, c *run.Container, n int) state {
	t.Helper()
	four, six := fmt.Sprintf("10.96.0.%d", n), fmt.Sprintf("fd96::%x", n)
	s := ask(t, l.PID, four+":7001")
	want := map[string]string{
		"7001": four, "7006": six, "7002": "::", "7003": "0.0.0.0", "7004": "127.0.0.1", "7005": "::1",
		"7011": four, "7016": six, "7012": "::",
	}
	if !maps.Equal(s.Bound, want) {
		t.Errorf("%s: the sockets are bound to %v, want %v", c.ID(), s.Bound, want)
	}
	for _, address := range []string{"[" + six + "]:7006", four + ":7002", "[" + six + "]:7002", four + ":7003"} {
		if got, err := line(t, l.PID, address, "hello"); err != nil || got != "hello" {
			t.Errorf("%s at %s: %q, %v", c.ID(), address, got, err)
		}
	}
	for _, address := range []string{"127.0.0.1:7004", "[::1]:7005"} {
		if got, err := line(t, c.Pid(), address, "hello"); err != nil || got != "hello" {
			t.Errorf("%s at %s: %q, %v", c.ID(), address, got, err)
		}
	}
	for _, address := range []string{four + ":7011", "[" + six + "]:7016", four + ":7012", "[" + six + "]:7012"} {
		if err := packet(t, l.PID, address); err != nil {
			t.Errorf("%s at %s over UDP: %v", c.ID(), address, err)
		}
	}
	return s
}

// TestOwnAddress: what a program has bound to its container's own addresses, over TCP
// and UDP, IPv4 and IPv6, is at the clone's in each of three clones that start at once, and in a
// clone of a clone; what it has bound to all addresses, or to loopback, stays there.
func TestOwnAddress(t *testing.T) {
	t.Parallel()
	l := lan(t)
	// Who listens at the other end of the connected sockets.
	var peer net.PacketConn
	err := harness.InNetNS(l.PID, func() (err error) {
		peer, err = net.ListenPacket("udp", "10.96.0.254:7013")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	a, away := startAt(t, l, endpoints(), 100)
	before := answersAt(t, l, a, 100)
	e := a.MustCapture(capture.Request{})
	answersAt(t, l, a, 100)
	noRules(t, "the captured container", a.Pid())
	away()

	clones := make([]*run.Container, 3)
	var wg sync.WaitGroup
	for n := range clones {
		wg.Go(func() {
			c := run.Create(t, shared, endpoints())
			clones[n] = c
			if _, err := attach(l, c, n+1); err != nil {
				t.Error(err)
			}
			if err := c.Task.Start(run.Context(t)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for n, c := range clones {
		c.MustRestored(e)
		if s := answersAt(t, l, c, n+1); s.Token != before.Token {
			t.Errorf("%s is another program: %+v", c.ID(), s)
		}
		noRules(t, "the clone", c.Pid())
		sends(t, l, peer, n+1, before.Token)
	}

	again := clones[2].MustCapture(capture.Request{})
	c, _ := startAt(t, l, endpoints(), 9)
	c.MustRestored(again)
	answersAt(t, l, c, 9)
	sends(t, l, peer, 9, before.Token)
	for n, c := range clones {
		answersAt(t, l, c, n+1)
	}
}

// sends checks that what the connected socket of the endpoints at 10.96.0.N sends comes from there.
func sends(t *testing.T, l *run.LAN, peer net.PacketConn, n int, token string) {
	t.Helper()
	own := fmt.Sprintf("10.96.0.%d", n)
	if got, err := line(t, l.PID, own+":7001", "send"); err != nil || got != "sent" {
		t.Fatalf("%q, %v", got, err)
	}
	if err := peer.SetReadDeadline(time.Now().Add(run.Deadline)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	size, from, err := peer.ReadFrom(b)
	if err != nil || string(b[:size]) != token || !strings.HasPrefix(from.String(), own+":") {
		t.Errorf("%q came from %v, %v; want %q from %s", b[:size], from, err, token, own)
	}
}

// TestNoAddressInItsPlace: where it is not clear which address stands in the place of the old
// one, the container boots in the same start and says so, and the checkpoint is not blamed; where
// the restore is demanded, the start fails with that.
func TestNoAddressInItsPlace(t *testing.T) {
	t.Parallel()
	l := lan(t)
	w := run.Want{Image: endpointsImage, Args: []string{"/bin/endpoints"}}
	a, away := startAt(t, l, w, 100)
	before := answersAt(t, l, a, 100)
	e := a.MustCapture(capture.Request{})
	away()
	const says = "10.96.0.100"

	two := run.Create(t, shared, w)
	if _, err := attach(l, two, 20); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Attach(two.Pid(), "10.96.0.21/24", nil); err != nil {
		t.Fatal(err)
	}
	if err := two.Task.Start(run.Context(t)); err != nil {
		t.Fatal(err)
	}
	r := two.Record()
	if r.Outcome != checkpoint.Boot || !strings.Contains(r.Fallback, says) || !strings.Contains(r.Fallback, "10.96.0.21") {
		t.Errorf("outcome %s, fallback %q", r.Outcome, r.Fallback)
	}
	noRules(t, "the container that fell back", two.Pid())
	if s := ask(t, l.PID, "10.96.0.20:7002"); s.Token == before.Token {
		t.Errorf("it is the captured program: %+v", s)
	}

	none := run.Start(t, shared, w)
	if r := none.Record(); r.Outcome != checkpoint.Boot || !strings.Contains(r.Fallback, "it has none of the kind") {
		t.Errorf("outcome %s, fallback %q", r.Outcome, r.Fallback)
	}
	if s := ask(t, none.Pid(), "127.0.0.1:7004"); s.Token == before.Token {
		t.Errorf("it is the captured program: %+v", s)
	}

	demanded := run.Create(t, shared, w.Annotate("restore", "Required"))
	if err := demanded.Task.Start(run.Context(t)); err == nil || !strings.Contains(err.Error(), says) {
		t.Errorf("demanded: %v", err)
	}
	if st, err := run.OpenStore(t, shared).Resolve(e.Digest); err != nil || st.State.Failures != 0 {
		t.Errorf("the checkpoint's state %+v, %v", st.State, err)
	}
}

// TestHostNetwork: in the host's network a clone has the captured program's sockets once it is
// gone; while its port is taken, the clone falls back, and says which port that is.
func TestHostNetwork(t *testing.T) {
	t.Parallel()
	link := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "host0"}}
	addr, err := netlink.ParseAddr("10.95.0.1/24")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(netlink.LinkAdd(link), netlink.AddrAdd(link, addr), netlink.LinkSetUp(link)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netlink.LinkDel(link); err != nil {
			t.Error(err)
		}
	})
	for name, listen := range map[string]string{"its address": "10.95.0.1:7100", "all addresses": "0.0.0.0:7101"} {
		t.Run(name, func(t *testing.T) {
			_, port, _ := strings.Cut(listen, ":")
			at := "10.95.0.1:" + port
			w := run.Probe(onHost)
			w.Args = append(w.Args, "-listen", listen)
			a := run.Start(t, shared, w)
			before := ask(t, shared.PID(), at)
			e := a.MustCapture(capture.Request{Stop: true})
			a.Wait()
			b := run.Start(t, shared, w)
			b.MustRestored(e)
			if s := ask(t, shared.PID(), at); s.Token != before.Token {
				t.Errorf("another program answers: %+v", s)
			}
			// The program cannot boot there either; that it tried is what the record tells.
			c := run.Start(t, shared, w)
			if r := c.Record(); r.Outcome != checkpoint.Boot || !strings.Contains(r.Fallback, "in use") {
				t.Errorf("outcome %s, fallback %q", r.Outcome, r.Fallback)
			}
			if got := c.Wait(); got == 0 {
				t.Errorf("exit status %d", got)
			}
			if s := ask(t, shared.PID(), at); s.Token != before.Token {
				t.Errorf("another program answers: %+v", s)
			}
			noRules(t, "the host", shared.PID())
		})
	}
}

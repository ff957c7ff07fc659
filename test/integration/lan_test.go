package integration

import (
	"errors"
	"fmt"
	"net"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/test/harness"
)

// lan is a network of its own: a namespace with a bridge, to which containers are
// attached and in which their peers live.
type lan struct {
	t *testing.T
	// pid is a process that keeps the namespace.
	pid    int
	bridge netlink.Link
}

// newLAN makes one. The bridge has the address.
func newLAN(t *testing.T, address string) *lan {
	t.Helper()
	keeper := exec.Command("sleep", "600")
	keeper.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	started := make(chan error, 1)
	done := make(chan struct{})
	go func() {
		runtime.LockOSThread() // the signal comes when this thread ends
		defer runtime.UnlockOSThread()
		started <- keeper.Start()
		<-done
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = keeper.Process.Kill()
		_ = keeper.Wait() // killed
		close(done)
	})
	l := &lan{t: t, pid: keeper.Process.Pid, bridge: &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}}
	l.inside(func() error {
		if err := netlink.LinkAdd(l.bridge); err != nil {
			return err
		}
		return setUp(l.bridge, address)
	})
	return l
}

func (l *lan) inside(fn func() error) {
	l.t.Helper()
	if err := harness.InNetNS(l.pid, fn); err != nil {
		l.t.Fatal(err)
	}
}

// attach gives the network namespace of a process an interface with an address
// and a hardware address. What it returns takes it away.
func (l *lan) attach(pid int, address string, mac net.HardwareAddr) (detach func()) {
	l.t.Helper()
	name := fmt.Sprintf("v%d", serial())
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	l.inside(func() error {
		veth := &netlink.Veth{LinkAttrs: attrs, PeerName: "e" + name, PeerHardwareAddr: mac, PeerNamespace: netlink.NsPid(pid)}
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("make an interface: %w", err)
		}
		if err := netlink.LinkSetMaster(veth, l.bridge); err != nil {
			return err
		}
		return netlink.LinkSetUp(veth)
	})
	err := harness.InNetNS(pid, func() error {
		link, err := netlink.LinkByName("e" + name)
		if err != nil {
			return err
		}
		return setUp(link, address)
	})
	if err != nil {
		l.t.Fatal(err)
	}
	return func() {
		l.inside(func() error {
			link, err := netlink.LinkByName(name)
			if errors.As(err, &netlink.LinkNotFoundError{}) {
				return nil // it went with the container's network
			}
			if err != nil {
				return err
			}
			return netlink.LinkDel(link)
		})
	}
}

// setUp gives an interface an address and turns it on.
func setUp(link netlink.Link, address string) error {
	addr, err := netlink.ParseAddr(address)
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(link, addr); err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}

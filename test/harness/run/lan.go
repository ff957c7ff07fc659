package run

import (
	"context"
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

// LAN is a network of its own: a namespace with a bridge, to which containers are
// attached and in which their peers live.
type LAN struct {
	t *testing.T
	// PID is a process that keeps the namespace, for harness.DialIn.
	PID    int
	bridge netlink.Link
}

// NewLAN makes one that goes with the test. The bridge has the address, such as 10.96.0.254/24.
func NewLAN(t *testing.T, address string) *LAN {
	t.Helper()
	keeper := exec.CommandContext(context.WithoutCancel(t.Context()), "sleep", "600")
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
	l := &LAN{t: t, PID: keeper.Process.Pid, bridge: &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}}
	l.inside(func() error {
		if err := netlink.LinkAdd(l.bridge); err != nil {
			return err
		}
		return setUp(l.bridge, address)
	})
	return l
}

func (l *LAN) inside(fn func() error) {
	l.t.Helper()
	if err := harness.InNetNS(l.PID, fn); err != nil {
		l.t.Fatal(err)
	}
}

// Attach gives the network namespace of a process an interface with an address, such as
// 10.96.0.1/24, and a hardware address; nil for any. What it returns takes it away.
func (l *LAN) Attach(pid int, address string, mac net.HardwareAddr) (detach func(), err error) {
	name := fmt.Sprintf("v%d", Serial())
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	err = harness.InNetNS(l.PID, func() error {
		veth := &netlink.Veth{LinkAttrs: attrs, PeerName: "e" + name, PeerHardwareAddr: mac, PeerNamespace: netlink.NsPid(pid)}
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("make an interface: %w", err)
		}
		if err := netlink.LinkSetMaster(veth, l.bridge); err != nil {
			return err
		}
		return netlink.LinkSetUp(veth)
	})
	if err != nil {
		return nil, err
	}
	err = harness.InNetNS(pid, func() error {
		link, err := netlink.LinkByName("e" + name)
		if err != nil {
			return err
		}
		return setUp(link, address)
	})
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
	}, err
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

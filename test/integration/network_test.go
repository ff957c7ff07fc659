package integration

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/shim/capture"
	"github.com/containerd-snap/snap/test/harness"
	"github.com/containerd-snap/snap/test/harness/run"
)

// TestOpenConnection captures a program while somebody talks to it: he does not
// notice, and is not heard in the clone.
func TestOpenConnection(t *testing.T) {
	t.Parallel()
	a := start(t, shared, probeOf())
	before := a.Probe()
	conn, err := harness.DialIn(testContext(t), a.Pid(), run.ProbeAddress)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(deadline)); err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewReader(conn)
	echo := func(text string) {
		t.Helper()
		if _, err := fmt.Fprintln(conn, text); err != nil {
			t.Fatal(err)
		}
		if got, err := answers.ReadString('\n'); err != nil || got != text+"\n" {
			t.Errorf("answer %q, %v, want %q", got, err, text)
		}
	}
	echo("before")
	e := a.MustCapture(capture.Request{})
	echo("after")
	clone := start(t, shared, probeOf())
	clone.MustRestored(e)
	clone.GoesOn(before)
	echo("still")
	// Clones listen as the original does, each in its own network.
	clone.GoesOn(before)
	a.GoesOn(before)
}

// TestCallerDies kills the command that starts a container in the midst of it.
// What the shim made of it then must go with the container.
func TestCallerDies(t *testing.T) {
	t.Parallel()
	n := newNode(t, harness.Options{})
	died := 0
	for ms := 20; ms <= 240; ms += 10 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(ms)*time.Millisecond)
		_, err := n.Ctr(ctx, "run", "-d", "--runtime", harness.Runtime, probeImage, fmt.Sprint("orphan", ms))
		if errors.Is(ctx.Err(), context.DeadlineExceeded) && err != nil {
			died++
		}
		cancel()
		if err := n.DeleteContainers(testContext(t)); err != nil {
			t.Error(err)
		}
	}
	// A server of which containerd was not told ends by itself, after half a minute.
	for end := time.Now().Add(45 * time.Second); time.Now().Before(end); time.Sleep(time.Second) {
		dropDeadSockets(t, n)
		if left, err := n.Leftovers(); err != nil || left.Empty() {
			break
		}
	}
	nothingLeft(t, n)
	if died == 0 {
		t.Error("the command was faster than its death each time")
	}
}

// dropDeadSockets removes sockets on which nobody answers: containerd kills our
// `start` with its caller, and then nobody knows of the socket. The stock shim
// leaves it, too; the next container of that name takes it over.
func dropDeadSockets(t *testing.T, n *harness.Node) {
	t.Helper()
	sockets, err := filepath.Glob(filepath.Join(n.Dir, "s", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range sockets {
		if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
			conn.Close()
		} else if errors.Is(err, unix.ECONNREFUSED) {
			os.Remove(path)
		}
	}
}

// TestNetworkAttached attaches an interface between Create and Start, as
// `ctr run --cni`, nerdctl and CRI do.
func TestNetworkAttached(t *testing.T) {
	t.Parallel()
	a := start(t, shared, probeOf())
	before := a.Probe()
	e := a.MustCapture(capture.Request{})
	c := create(t, shared, probeOf())
	attachVeth(t, c.Pid(), "10.99.0.2/24")
	if err := c.Task.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	c.MustRestored(e)
	c.GoesOn(before)
	if out := c.MustExec("ip", "addr"); !strings.Contains(out, "10.99.0.2/24") {
		t.Errorf("the clone's addresses: %s", out)
	}
}

// attachVeth moves one end of a veth pair into the network namespace of a process.
func attachVeth(t *testing.T, pid int, address string) {
	t.Helper()
	name := fmt.Sprintf("snapt%d", serial())
	host := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "p"}
	if err := netlink.LinkAdd(host); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(host) }) // it ends with the namespace of its peer
	peer, err := netlink.LinkByName(name + "p")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetNsPid(peer, pid); err != nil {
		t.Fatal(err)
	}
	err = harness.InNetNS(pid, func() error {
		addr, err := netlink.ParseAddr(address)
		if err != nil {
			return err
		}
		link, err := netlink.LinkByName(name + "p")
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(link, addr); err != nil {
			return err
		}
		return netlink.LinkSetUp(link)
	})
	if err != nil {
		t.Fatal(err)
	}
}

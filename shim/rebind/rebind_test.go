package rebind

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint/criu"
)

// inNetwork runs fn on a thread in a network namespace of its own, in which eth0 has
// the addresses 10.1.0.9 and fd01::9.
func inNetwork(t *testing.T, fn func(path string)) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Error(err)
			return
		}
		for _, args := range []string{
			"link set lo up", "link add eth0 type veth peer name p0", "link set eth0 up", "link set p0 up",
			"addr add 10.1.0.9/24 dev eth0", "addr add fd01::9/64 dev eth0 nodad",
		} {
			if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
				t.Errorf("ip %s: %v: %s", args, err, out)
				return
			}
		}
		fn(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
	}()
	<-done
}

var captured = network("eth0 10.0.0.2 fd00::2")

func tcp(local string) criu.Socket {
	s := criu.Socket{ID: 5, Family: unix.AF_INET, Type: unix.SOCK_STREAM, Protocol: unix.IPPROTO_TCP, Listening: true, Backlog: 8, Local: netip.MustParseAddrPort(local)}
	if !s.Local.Addr().Is4() {
		s.Family = unix.AF_INET6
	}
	return s
}

func udp(local, remote string) criu.Socket {
	s := tcp(local)
	s.Type, s.Protocol, s.Listening = unix.SOCK_DGRAM, unix.IPPROTO_UDP, false
	if remote != "" {
		s.Remote = netip.MustParseAddrPort(remote)
	}
	return s
}

// name is where a socket is bound to, as Go writes it.
func name(t *testing.T, a unix.Sockaddr, err error) string {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)).String()
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port)).String()
	}
	return ""
}

func TestBind(t *testing.T) {
	inNetwork(t, func(path string) {
		listener := tcp("10.0.0.2:80")
		listener.Flags = unix.O_RDWR | unix.O_NONBLOCK
		listener.Options = []criu.SocketOption{
			{Level: unix.SOL_SOCKET, Name: unix.SO_KEEPALIVE, Value: 1},
			{Level: unix.SOL_SOCKET, Name: unix.SO_RCVBUFFORCE, Value: 50000},
			{Level: unix.SOL_SOCKET, Name: unix.SO_RCVTIMEO, Time: &unix.Timeval{Sec: 3}},
			{Level: unix.SOL_SOCKET, Name: unix.SO_LINGER, Linger: &unix.Linger{Onoff: 1, Linger: 7}},
		}
		six := tcp("[fd00::2]:80")
		six.V6Only = true
		device := tcp("10.0.0.2:81")
		device.Device = "eth0"
		device.ReuseAddress = true
		mapped := tcp("[::ffff:10.0.0.2]:82")
		s, err := Make(path, "", captured, []criu.Socket{listener, six, device, mapped, udp("10.0.0.2:53", ""), udp("10.0.0.2:5000", "10.1.0.77:514"), udp("10.0.0.2:5001", "10.0.0.2:53")})
		if err != nil {
			t.Error(err)
			return
		}
		defer s.Close()
		if err := errors.Join(s.Bind(), s.Settle()); err != nil {
			t.Error(err)
			return
		}
		var got []string
		for _, f := range s.Files() {
			a, err := unix.Getsockname(int(f.Fd()))
			got = append(got, name(t, a, err))
		}
		if want := "10.1.0.9:80 [fd01::9]:80 10.1.0.9:81 [::ffff:10.1.0.9]:82 10.1.0.9:53 10.1.0.9:5000 10.1.0.9:5001"; strings.Join(got, " ") != want {
			t.Errorf("bound to %s, want %s", got, want)
		}
		for i, want := range map[int]string{5: "10.1.0.77:514", 6: "10.1.0.9:53"} {
			a, err := unix.Getpeername(int(s.Files()[i].Fd()))
			if got := name(t, a, err); got != want {
				t.Errorf("connected to %s, want %s", got, want)
			}
		}
		fd := int(s.Files()[0].Fd())
		for option, want := range map[int]int{unix.SO_KEEPALIVE: 1, unix.SO_RCVBUF: 100000, unix.SO_REUSEADDR: 0, unix.SO_REUSEPORT: 0, unix.SO_ACCEPTCONN: 1} {
			if got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, option); err != nil || got != want {
				t.Errorf("option %d is %d, %v, want %d", option, got, err, want)
			}
		}
		if got, err := unix.GetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER); err != nil || got.Linger != 7 {
			t.Errorf("linger %v, %v", got, err)
		}
		if got, err := unix.GetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO); err != nil || got.Sec != 3 {
			t.Errorf("timeout %v, %v", got, err)
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK == 0 {
			t.Errorf("flags %#x, %v", flags, err)
		}
		if on, err := unix.GetsockoptInt(int(s.Files()[2].Fd()), unix.SOL_SOCKET, unix.SO_REUSEADDR); err != nil || on != 1 {
			t.Errorf("the program's SO_REUSEADDR is %d, %v", on, err)
		}
		for i, f := range s.Files() {
			if free, err := unix.GetsockoptInt(int(f.Fd()), unix.SOL_IP, unix.IP_FREEBIND); err != nil || free != 0 {
				t.Errorf("socket %d: IP_FREEBIND is %d, %v", i, free, err)
			}
		}
		for _, address := range []string{"10.1.0.9:80", "[fd01::9]:80", "10.1.0.9:82"} {
			c, err := net.Dial("tcp", address)
			if err != nil {
				t.Error(err)
				continue
			}
			c.Close()
		}
	})
}

func TestBindRefuses(t *testing.T) {
	inNetwork(t, func(path string) {
		taken, err := net.Listen("tcp", "10.1.0.9:80")
		if err != nil {
			t.Error(err)
			return
		}
		defer taken.Close()
		device := tcp("10.0.0.2:81")
		device.Device = "eth7"
		for _, tc := range []struct {
			socket   criu.Socket
			captured string
			says     string
		}{
			{tcp("10.0.0.2:80"), "eth0 10.0.0.2", "10.0.0.2:80: bind to 10.1.0.9:80: address already in use"},
			{device, "eth0 10.0.0.2", "interface eth7"},
			{tcp("10.0.0.2:81"), "eth0 10.0.0.2 10.0.0.3", ErrNoAddress.Error()},
			{udp("10.0.0.2:81", "192.0.2.1:53"), "eth0 10.0.0.2", "connect to 192.0.2.1:53 from 10.1.0.9:81: network is unreachable"},
		} {
			s, err := Make(path, "", network(tc.captured), []criu.Socket{tc.socket})
			if err != nil {
				t.Error(err)
				continue
			}
			if err := s.Bind(); err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("%v, want one that says %q", err, tc.says)
			}
			s.Close()
			s.Close()
		}
	})
	if _, err := Make("/nowhere", "", captured, []criu.Socket{tcp("10.0.0.2:80")}); err == nil {
		t.Error("a socket was made nowhere")
	}
	bad := tcp("10.0.0.2:80")
	bad.Options = []criu.SocketOption{{Level: 4711, Name: 1, Value: 1}}
	if _, err := Make("/proc/self/ns/net", "", captured, []criu.Socket{bad}); err == nil || !strings.Contains(err.Error(), "option 4711:1") {
		t.Errorf("%v", err)
	}
}

// TestNone: most programs have no such socket.
func TestNone(t *testing.T) {
	var s *Sockets
	if err := errors.Join(s.Bind(), s.Settle()); err != nil || len(s.Keys())+len(s.Inherit())+len(s.Files()) != 0 {
		t.Error(err)
	}
	s.Close()
}

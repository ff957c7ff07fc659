// Command endpoints listens on its container's own addresses, on all, and on loopback, over
// TCP and UDP, and holds a connected UDP socket; it says where its sockets are by asking
// the kernel.
package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// State is what it answers to the line "state".
type State struct {
	// Token is made when the program boots.
	Token string `json:"token"`
	// Bound are the local addresses of its sockets, by the port that each has.
	Bound map[string]string `json:"bound"`
}

type program struct {
	token string
	bound []syscall.RawConn
	// peer is the connected socket; nil for none.
	peer *net.UDPConn
}

func main() {
	log.SetFlags(0)
	peer := flag.String("peer", "", "hold a UDP socket that is connected to this `address`")
	flag.Parse()
	p := &program{token: rand.Text()}
	if err := p.open(*peer); err != nil {
		fail(err)
	}
	fmt.Println("booted", p.token)
	select {}
}

// fail ends the program: the test then finds it gone.
func fail(err error) {
	log.Print(err)
	os.Exit(1)
}

// open opens the sockets: by port, 7001 and 7011 of the own address, 7002 and 7012 of all,
// 7003 of IPv4 alone, 7004 of loopback.
func (p *program) open(peer string) error {
	four, six, err := own()
	if err != nil {
		return err
	}
	tcp := []string{"[::]:7002", "0.0.0.0:7003", "127.0.0.1:7004", "[::1]:7005"}
	udp := []string{"[::]:7012"}
	if four != "" {
		tcp, udp = append(tcp, four+":7001"), append(udp, four+":7011")
	}
	if six != "" {
		tcp, udp = append(tcp, "["+six+"]:7006"), append(udp, "["+six+"]:7016")
	}
	for _, address := range tcp {
		// CRIU knows no multipath TCP, which Go's listeners offer.
		var lc net.ListenConfig
		lc.SetMultipathTCP(false)
		network := "tcp"
		if !strings.HasPrefix(address, "[") {
			network = "tcp4" // 0.0.0.0 would be ::
		}
		l, err := lc.Listen(context.Background(), network, address)
		if err != nil {
			return err
		}
		p.note(l.(syscall.Conn))
		go p.serve(l)
	}
	for _, address := range udp {
		c, err := (&net.ListenConfig{}).ListenPacket(context.Background(), "udp", address)
		if err != nil {
			return err
		}
		p.note(c.(syscall.Conn))
		go echo(c)
	}
	if peer != "" {
		c, err := (&net.Dialer{}).DialContext(context.Background(), "udp", peer)
		if err != nil {
			return err
		}
		p.peer = c.(*net.UDPConn)
	}
	return nil
}

// own returns the container's own addresses; empty for none.
func own() (four, six string, err error) {
	all, err := net.InterfaceAddrs()
	for _, a := range all {
		prefix, perr := netip.ParsePrefix(a.String())
		switch addr := prefix.Addr(); {
		case perr != nil || addr.IsLoopback() || addr.IsLinkLocalUnicast():
		case addr.Is4():
			four = addr.String()
		default:
			six = addr.String()
		}
	}
	return four, six, err
}

func (p *program) note(c syscall.Conn) {
	raw, err := c.SyscallConn()
	if err != nil {
		fail(err)
	}
	p.bound = append(p.bound, raw)
}

func (p *program) state() (State, error) {
	s := State{Token: p.token, Bound: map[string]string{}}
	for _, c := range p.bound {
		var name unix.Sockaddr
		err := c.Control(func(fd uintptr) {
			name, _ = unix.Getsockname(int(fd))
		})
		if err != nil {
			return s, err
		}
		var at netip.AddrPort
		switch name := name.(type) {
		case *unix.SockaddrInet4:
			at = netip.AddrPortFrom(netip.AddrFrom4(name.Addr), uint16(name.Port))
		case *unix.SockaddrInet6:
			at = netip.AddrPortFrom(netip.AddrFrom16(name.Addr), uint16(name.Port))
		}
		s.Bound[strconv.Itoa(int(at.Port()))] = at.Addr().String()
	}
	return s, nil
}

func (p *program) serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			fail(err)
		}
		go p.answer(c)
	}
}

// answer answers the lines of one connection: "state"; "send", which sends the token to the
// peer; or anything as an echo.
func (p *program) answer(c net.Conn) {
	defer c.Close()
	for s := bufio.NewScanner(c); s.Scan(); {
		var err error
		switch line := strings.TrimSpace(s.Text()); line {
		case "state":
			var st State
			if st, err = p.state(); err == nil {
				err = json.NewEncoder(c).Encode(st)
			}
		case "send":
			if _, err = fmt.Fprint(p.peer, p.token); err == nil {
				_, err = fmt.Fprintln(c, "sent")
			}
		default:
			_, err = fmt.Fprintln(c, line)
		}
		if err != nil {
			fmt.Fprintln(c, err)
			return
		}
	}
}

// echo sends each packet back.
func echo(c net.PacketConn) {
	b := make([]byte, 1500)
	for {
		n, from, err := c.ReadFrom(b)
		if err != nil {
			fail(err)
		}
		if _, err := c.WriteTo(b[:n], from); err != nil {
			log.Print(err)
		}
	}
}

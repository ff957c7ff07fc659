// Command probe is the program that the integration tests capture and restore:
// it keeps a counter in memory and in a file in lock step, knows by a token
// whether it is still the one that booted, and answers over TCP and stdin.
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
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// State is what the probe answers to the line "state".
type State struct {
	// Token is made when the program boots.
	Token string `json:"token"`
	// Counter is the counter in memory, File the one in the file.
	Counter int64 `json:"counter"`
	File    int64 `json:"file"`
	// Hostname is what the kernel says now.
	Hostname string `json:"hostname"`
	PID      int    `json:"pid"`
}

type probe struct {
	token string
	// ballast is memory that a checkpoint has to carry.
	ballast []byte

	// mu guards the counter, in memory and in the file.
	mu      sync.Mutex
	counter int64
	file    *os.File
}

func main() {
	log.SetFlags(0)
	path := flag.String("file", "/counter", "keep the counter in this `file`")
	address := flag.String("listen", "127.0.0.1:7000", "answer at this `address`; empty for none")
	multipath := flag.Bool("mptcp", false, "offer multipath TCP")
	megabytes := flag.Int("memory", 0, "hold this many megabytes of random bytes")
	held := flag.String("hold", "", "hold these resources, a comma-separated `list`")
	flag.Parse()
	p := &probe{token: rand.Text(), ballast: make([]byte, *megabytes<<20)}
	rand.Read(p.ballast)
	var err error
	if p.file, err = os.OpenFile(*path, os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		log.Fatal(err)
	}
	if err := hold(*held); err != nil {
		log.Fatal(err)
	}
	if *address != "" {
		// CRIU knows no multipath TCP, which Go's listeners offer.
		var lc net.ListenConfig
		lc.SetMultipathTCP(*multipath)
		at, err := own(*address)
		if err != nil {
			log.Fatal(err)
		}
		l, err := lc.Listen(context.Background(), "tcp", at)
		if err != nil {
			log.Fatal(err)
		}
		go p.serve(l)
	}
	go p.count()
	go p.read()
	fmt.Println("booted", p.token)
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGTERM, unix.SIGUSR1, unix.SIGWINCH)
	for sig := range signals {
		switch sig {
		case unix.SIGTERM:
			fmt.Println("terminated", p.token)
			os.Exit(7)
		case unix.SIGWINCH:
			if ws, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ); err == nil {
				fmt.Println("size", ws.Col, ws.Row)
			}
		default:
			fmt.Println("signal", sig)
		}
	}
}

// own puts the container's own address in the place of the host "own".
func own(address string) (string, error) {
	port, ok := strings.CutPrefix(address, "own:")
	if !ok {
		return address, nil
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return "", err
	}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && n.IP.To4() != nil {
			return net.JoinHostPort(n.IP.String(), port), nil
		}
	}
	return "", fmt.Errorf("listen at %s: no address but loopback", address)
}

// count raises the counter in memory, then in the file.
func (p *probe) count() {
	for range time.Tick(5 * time.Millisecond) {
		p.mu.Lock()
		p.counter++
		_, err := p.file.WriteAt(fmt.Appendf(nil, "%020d\n", p.counter), 0)
		p.mu.Unlock()
		if err != nil {
			log.Fatal(err)
		}
	}
}

func (p *probe) state() (State, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := State{Token: p.token, Counter: p.counter, PID: os.Getpid()}
	var err error
	if s.Hostname, err = os.Hostname(); err != nil {
		return s, err
	}
	b := make([]byte, 20)
	if _, err := p.file.ReadAt(b, 0); err != nil {
		return s, nil // not yet written
	}
	s.File, err = strconv.ParseInt(string(b), 10, 64)
	return s, err
}

// read answers lines on stdin.
func (p *probe) read() {
	for s := bufio.NewScanner(os.Stdin); s.Scan(); {
		fmt.Println("read", s.Text())
	}
	fmt.Println("end of input")
}

func (p *probe) serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go p.answer(c)
	}
}

// answer answers the lines of one connection: "state", or anything as an echo.
func (p *probe) answer(c net.Conn) {
	defer c.Close()
	for s := bufio.NewScanner(c); s.Scan(); {
		if strings.TrimSpace(s.Text()) != "state" {
			fmt.Fprintln(c, s.Text())
			continue
		}
		st, err := p.state()
		if err != nil {
			fmt.Fprintln(c, err)
			continue
		}
		if json.NewEncoder(c).Encode(st) != nil {
			return
		}
	}
}

package manager

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/containerd-snap/snap/shim/libct"
)

// TestMain is the server where Start executes it as one: it tells whoever
// connects to the socket that it inherited its pid and how it was called.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == libct.InitArg {
		libct.Init()
	}
	if os.Getenv(envAddress) == "" {
		os.Exit(m.Run())
	}
	l, err := net.FileListener(os.NewFile(3, "socket"))
	for err == nil {
		var c net.Conn
		if c, err = l.Accept(); err == nil {
			// Who only wants to know whether somebody answers has gone already.
			_, _ = fmt.Fprintln(c, os.Getpid(), os.Getenv(envAddress), strings.Join(os.Args[1:], " "))
			c.Close()
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

package netlock

import (
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// connect makes a connection of this process with itself.
func connect(t *testing.T) (ours, theirs net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ours, err = net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	theirs, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	return ours, theirs
}

func TestFind(t *testing.T) {
	before, err := Find([]int{os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close()
	// None of these is a connection.
	for _, network := range []string{"tcp", "tcp6"} {
		l, err := net.Listen(network, ":0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
	}
	u, err := net.Dial("udp", "127.0.0.1:9")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	ours, _ := connect(t)
	// A second descriptor of one socket.
	dup, err := ours.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer dup.Close()

	const nobody = 1 << 22
	found, err := Find([]int{os.Getpid(), nobody})
	if err != nil {
		t.Fatal(err)
	}
	defer found.Close()
	if len(found) != len(before)+2 {
		t.Errorf("found %d connections more: %s", len(found)-len(before), found)
	}
	for _, want := range []string{
		ours.LocalAddr().String() + " -> " + ours.RemoteAddr().String(),
		ours.RemoteAddr().String() + " -> " + ours.LocalAddr().String(),
	} {
		if !strings.Contains(found.String(), want) {
			t.Errorf("%s is not among %s", want, found)
		}
	}
}

// TestDetach: who closes a detached connection does not tell the other end.
func TestDetach(t *testing.T) {
	ours, theirs := connect(t)
	found, err := Find([]int{os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	mine := slices.DeleteFunc(slices.Clone(found), func(c Connection) bool { return c.Local.String() != ours.LocalAddr().String() })
	if len(mine) != 1 {
		t.Fatalf("connections %s", found)
	}
	if err := mine.Detach(); err != nil {
		t.Fatal(err)
	}
	ours.Close()
	if err := found.Close(); err != nil {
		t.Fatal(err)
	}
	if err := theirs.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := theirs.Read(make([]byte, 1)); !os.IsTimeout(err) {
		t.Errorf("the peer was told: %d, %v", n, err)
	}
}

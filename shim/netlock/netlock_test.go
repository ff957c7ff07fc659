package netlock

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inNewNetwork runs fn on a thread in a network namespace of its own, with loopback.
func inNewNetwork(t *testing.T, fn func(path string)) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Error(err)
			return
		}
		if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
			return
		}
		fn(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
	}()
	<-done
}

func tables(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
	return string(out)
}

// echo sends a word to itself over UDP and says whether it came.
func echo(t *testing.T) bool {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Error(err)
		return false
	}
	defer c.Close()
	// To a dropped packet the sender gets EPERM.
	if _, err := c.WriteTo([]byte("word"), c.LocalAddr()); err != nil && !errors.Is(err, unix.EPERM) {
		t.Error(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
		t.Error(err)
	}
	_, err = c.Read(make([]byte, 10))
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	return err == nil
}

func TestLock(t *testing.T) {
	inNewNetwork(t, func(path string) {
		if !echo(t) {
			t.Error("no packet passes before the lock")
		}
		l, err := Take(path)
		if err != nil {
			t.Error(err)
			return
		}
		if rules := tables(t); strings.Count(rules, "policy drop") != 2 || !strings.Contains(rules, "owner") {
			t.Errorf("rules %s", rules)
		}
		if echo(t) {
			t.Error("a packet passes the lock")
		}
		if again, err := Take(path); err == nil {
			t.Error("it was taken twice")
			again.Release()
		}
		for range 2 {
			if err := l.Release(); err != nil {
				t.Error(err)
			}
		}
		if rules := tables(t); rules != "" {
			t.Errorf("rules after the release: %s", rules)
		}
		if !echo(t) {
			t.Error("no packet passes after the release")
		}
	})
}

func TestTakeRefuses(t *testing.T) {
	for _, path := range []string{"/nowhere", os.DevNull} {
		if l, err := Take(path); err == nil {
			t.Errorf("%s was locked", path)
			l.Release()
		}
	}
	var none *Lock
	if err := none.Release(); err != nil {
		t.Error(err)
	}
}

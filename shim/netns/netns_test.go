package netns

import (
	"fmt"
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// TestAddresses makes interfaces with addresses in a namespace of its own. The kernel makes
// the peer of a pair first.
func TestAddresses(t *testing.T) {
	path := make(chan string)
	done := make(chan struct{})
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine, and the namespace with it
		defer close(path)
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Error(err)
			return
		}
		for _, args := range [][]string{
			{"link", "set", "lo", "up"},
			{"link", "add", "a0", "type", "veth", "peer", "name", "b0"},
			{"addr", "add", "10.1.0.3/24", "dev", "a0"},
			{"addr", "add", "10.1.0.2/24", "dev", "a0"},
			{"addr", "add", "fd00::2/64", "dev", "b0"},
		} {
			if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
				t.Errorf("ip %v: %v: %s", args, err, out)
			}
		}
		path <- fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())
		<-done
	}()
	found, err := Addresses(<-path)
	close(done)
	if got, want := fmt.Sprint(found), "[fd00::2 (b0) 10.1.0.3 (a0) 10.1.0.2 (a0)]"; err != nil || got != want {
		t.Errorf("%s, %v, want %s", got, err, want)
	}
}

func TestRefuses(t *testing.T) {
	for _, path := range []string{"/nowhere", "/dev/null"} {
		if err := Do(path, func() error { t.Errorf("fn ran in %s", path); return nil }); err == nil {
			t.Errorf("%s: no error", path)
		}
	}
}

package harness

import (
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestNetNSHolders(t *testing.T) {
	own, err := NetNSOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	again, err := NetNSOf(os.Getpid())
	if err != nil || again != own {
		t.Errorf("%+v, then %+v: %v", own, again, err)
	}
	cmd := exec.CommandContext(t.Context(), "sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	pid := strconv.Itoa(cmd.Process.Pid)
	n, err := NetNSOf(cmd.Process.Pid)
	if err != nil || n == own {
		t.Fatalf("%+v: %v", n, err)
	}
	holders, err := n.Holders()
	if want := "/proc/" + pid + "/task/" + pid + "/ns/net"; err != nil || !slices.Equal(holders, []string{want}) {
		t.Errorf("%q: %v", holders, err)
	}
	// The number of one that is gone, which another has now.
	n.cookie--
	if holders, err := n.Holders(); err != nil || len(holders) > 0 {
		t.Errorf("another one with its number: %q: %v", holders, err)
	}
	if _, err := NetNSOf(0); err == nil {
		t.Error("process 0 has one")
	}
}

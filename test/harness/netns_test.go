package harness_test

import (
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/test/harness"
)

func TestSetLoopbackUp(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "sleep", "60")
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed, as it was told
	}()
	if err := harness.SetLoopbackUp(cmd.Process.Pid); err != nil {
		t.Error(err)
	}
	if err := harness.SetLoopbackUp(1 << 30); err == nil {
		t.Error("set up the loopback device of no process")
	}
}

package main

import (
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/test/harness"
)

// inNewNetwork starts a process in a network namespace of its own.
func inNewNetwork(t *testing.T) (pid int, end func()) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sleep", "60")
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed, as it was told
	}
	t.Cleanup(end)
	return cmd.Process.Pid, end
}

func TestNetworksGone(t *testing.T) {
	d := &demo{networks: map[harness.NetNS]bool{}}
	if err := d.noteNetwork(os.Getpid()); err == nil {
		t.Error("our own network was taken for a task's")
	}
	pid, end := inNewNetwork(t)
	if err := d.noteNetwork(pid); err != nil {
		t.Fatal(err)
	}
	if err := d.networksGone(); err == nil {
		t.Error("a network that a process lives in is gone")
	}
	other, _ := inNewNetwork(t)
	n, err := harness.NetNSOf(other)
	if err != nil || d.networks[n] {
		t.Errorf("another network is %+v (error %v), the task's are %v", n, err, d.networks)
	}
	end()
	if err := d.networksGone(); err != nil {
		t.Error(err)
	}
}

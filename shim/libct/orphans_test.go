package libct

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestStat(t *testing.T) {
	session, err := unix.Getsid(0)
	if err != nil {
		t.Fatal(err)
	}
	st, ok := stat(os.Getpid())
	if !ok || st.state == "" || st.parent != os.Getppid() || st.group != unix.Getpgrp() || st.session != session {
		t.Errorf("this process: %+v, %t", st, ok)
	}
	if _, ok := stat(1 << 30); ok {
		t.Error("a process that cannot be is one")
	}
}

// Only orphans of our group that are CRIU's are ended: not a child of ours, and
// not one of another group.
func TestKillOrphans(t *testing.T) {
	child := exec.CommandContext(t.Context(), "/bin/sh", "-c", "sleep 60", "swrk")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = child.Process.Kill(); _ = child.Wait() })
	stranger := exec.CommandContext(t.Context(), "/bin/sh", "-c", "sleep 60", "swrk")
	stranger.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stranger.Process.Kill(); _ = stranger.Wait() })
	killOrphans()
	for _, p := range []*os.Process{child.Process, stranger.Process} {
		if look(p.Pid).zombie {
			t.Errorf("process %d was ended", p.Pid)
		}
	}
	// Its parent, a shell, has ended; the orphan's own parent is not of our group.
	script := exec.CommandContext(t.Context(), "/bin/sh", "-c", "sh -c 'sleep 60' swrk >/dev/null 2>&1 & echo $!")
	out, err := script.Output()
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Kill(pid, unix.SIGKILL) }()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	killOrphans()
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 5000); n != 1 || err != nil {
		t.Errorf("the orphan lives: %d, %v", n, err)
	}
}

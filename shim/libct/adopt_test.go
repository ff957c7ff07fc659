package libct

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// orphan makes a shell leave a process, which we adopt, and waits for its death.
func orphan(t *testing.T, session bool) int {
	t.Helper()
	command := "sleep 0.01"
	if session {
		// It leads no session, but is in another one than we are.
		command = "setsid sh -c 'sleep 0.01 & wait; sleep 0.01 & echo $!' &"
	} else {
		command += " >/dev/null 2>&1 & echo $!"
	}
	out, err := exec.CommandContext(t.Context(), "/bin/sh", "-c", command).Output()
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	died(t, pid)
	return pid
}

// foster makes this process one that adopts orphans, for a test.
func foster(t *testing.T) {
	t.Helper()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0); err != nil {
			t.Error(err)
		}
	})
}

func gone(pid int) bool {
	_, ok := stat(pid)
	return !ok
}

// TestBury: an orphan of a container is buried at once; one that a hook may have left
// when it was not waited for in a long time; and nobody's child before.
func TestBury(t *testing.T) {
	foster(t)
	a := &adoption{}
	foreign, near := orphan(t, true), orphan(t, false)
	now := time.Now()
	if left := a.bury(now); !left || !gone(foreign) || gone(near) {
		t.Errorf("left: %t; gone: the container's %t, the hook's %t", left, gone(foreign), gone(near))
	}
	launching.begin()
	if a.bury(now.Add(mourning)); gone(near) {
		t.Error("a child was taken from whoever starts it")
	}
	launching.end(nil)
	a.bury(now.Add(mourning))
	if left := a.bury(now.Add(2 * mourning)); left || !gone(near) {
		t.Errorf("left: %t; gone: %t", left, gone(near))
	}
}

// TestBuryNone: the leader of a session that somebody is starting, and a child that
// somebody waits for, keep their exit statuses.
func TestBuryNone(t *testing.T) {
	for name, known := range map[string]bool{"being started": false, "known": true} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", "exit 3")
			cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
			launching.begin()
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			pid := cmd.Process.Pid
			if known {
				waitedFor.Store(pid, struct{}{})
				defer waitedFor.Delete(pid)
				launching.end(nil)
			} else {
				defer launching.end(nil)
			}
			died(t, pid)
			new(adoption).bury(time.Now())
			if err := cmd.Wait(); cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != 3 {
				t.Errorf("%v, %v", cmd.ProcessState, err)
			}
		})
	}
}

// died waits until a child of ours is dead.
func died(t *testing.T, pid int) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for st, _ := stat(pid); st.state != "Z" || st.parent != os.Getpid(); st, _ = stat(pid) {
		if time.Now().After(deadline) {
			t.Fatalf("process %d is %+v", pid, st)
		}
		time.Sleep(time.Millisecond)
	}
}

package cri

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/test/harness"
)

// shimOf returns the process that is the parent of the process pid.
func shimOf(t *testing.T, pid int) harness.Process {
	t.Helper()
	p, err := harness.ReadProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	s, err := harness.ReadProcess(p.PPID)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// shims counts the shim processes that were started for a sandbox.
func shims(t *testing.T, id string) int {
	t.Helper()
	all, err := harness.Processes()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, p := range all {
		if len(p.Args) > 0 && strings.Contains(p.Args[0], "containerd-shim-") && strings.Contains(strings.Join(p.Args, " "), "-id "+id) {
			n++
		}
	}
	return n
}

// same says that processes are in the same namespace of a kind.
func same(t *testing.T, kind string, pids ...int) bool {
	t.Helper()
	inodes := map[uint64]bool{}
	for _, pid := range pids {
		var st unix.Stat_t
		if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/%s", pid, kind), &st); err != nil {
			t.Fatal(err)
		}
		inodes[st.Ino] = true
	}
	return len(inodes) == 1
}

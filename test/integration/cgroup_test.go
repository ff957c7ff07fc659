package integration

import (
	"fmt"
	"os"
	"syscall"
	"testing"
)

// netns is the inode number of a process's network namespace.
func netns(t *testing.T, pid int) uint64 {
	t.Helper()
	st, err := os.Stat(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		t.Fatal(err)
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		t.Fatalf("stat of a namespace: %T", st.Sys())
	}
	return sys.Ino
}

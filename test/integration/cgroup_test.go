package integration

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd-snap/snap/test/harness"
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

// inOwnCgroup checks that the processes are those of the container's own cgroups,
// in every hierarchy that the node uses, and that there are no others.
func (c *container) inOwnCgroup() {
	c.t.Helper()
	pids, err := c.task.Pids(testContext(c.t))
	if err != nil {
		c.t.Fatal(err)
	}
	var told []int
	for _, p := range pids {
		told = append(told, int(p.Pid))
	}
	own := ":/" + c.node.Namespace + "/" + c.ID()
	var inside []int
	all, err := harness.Processes()
	if err != nil {
		c.t.Fatal(err)
	}
	for _, p := range all {
		if !slices.ContainsFunc(p.Cgroups, func(line string) bool { return strings.HasSuffix(line, own) }) {
			continue
		}
		inside = append(inside, p.PID)
		for _, line := range p.Cgroups {
			if strings.Contains(line, c.node.Namespace) && !strings.HasSuffix(line, own) {
				c.t.Errorf("%s: process %s is in cgroup %s, too", c.ID(), p, line)
			}
		}
	}
	slices.Sort(told)
	slices.Sort(inside)
	if !slices.Equal(told, inside) || !slices.Contains(inside, c.pid()) {
		c.t.Errorf("%s: processes in the container's cgroup: %v, told: %v, init: %d", c.ID(), inside, told, c.pid())
	}
}

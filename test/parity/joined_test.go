package parity

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestJoinedPIDs: a container in the pid namespace of another, by its path, as in a pod that
// shares one. The first process there is the other's, which orphans fall to, and nothing but
// the runtime ends what the container leaves.
func TestJoinedPIDs(t *testing.T) {
	pair := func(s *side, w want) (first, second *container) {
		s.Helper()
		first = s.started(shell("while :; do sleep 0.1; done"))
		w.opts = append(w.opts, oci.WithLinuxNamespace(specs.LinuxNamespace{
			Type: specs.PIDNamespace, Path: fmt.Sprintf("/proc/%d/ns/pid", first.task.Pid()),
		}))
		return first, s.started(w)
	}
	// left waits until the container has processes of these commands, and no others.
	left := func(c *container, commands ...string) {
		c.Helper()
		c.eventually(func() error {
			if got := c.commands(); got != strings.Join(commands, "\n") {
				return fmt.Errorf("processes %q, want %q", got, commands)
			}
			return nil
		})
	}
	compare(t, "joined pids: orphan of an exec", func(s *side) {
		first, c := pair(s, want{args: []string{"sleep", "1000"}})
		_, code := c.run("sh", "-c", "(sleep 999 & sleep 0.1 & exit) >/dev/null 2>&1 </dev/null; exit 4")
		s.see("exit", "%d", code)
		// What has ended is buried.
		left(c, "sleep 1000", "sleep 999")
		for _, p := range c.processes() {
			if slices.Equal(p.Args, []string{"sleep", "999"}) {
				s.see("its parent is the namespace's first process", "%t", p.PPID == int(first.task.Pid()))
			}
		}
		c.killCommand("sleep 999")
		left(c, "sleep 1000")
		s.must(c.task.Kill(s.context(), unix.SIGKILL))
		s.see("exit of init", "%d", c.wait())
	})
	compare(t, "joined pids: init leaves processes", func(s *side) {
		first, c := pair(s, shell("(sleep 999 & setsid sleep 998 & exit); sleep 997 & exit 6"))
		s.see("exit", "%d", c.wait())
		if !s.isStock() {
			// The stock shim leaves them until the deletion at times.
			left(c)
		}
		_, err := c.task.Delete(s.context())
		s.seeError("delete", err)
		left(c)
		s.see("the first is", "%s", statusOf(first))
		_, code := first.run("true")
		s.see("exit of an exec in the first", "%d", code)
	})
	compare(t, "joined pids: the namespace ends", func(s *side) {
		first, c := pair(s, shell("(sleep 999 & exit); exec sleep 998"))
		left(c, "sleep 998", "sleep 999")
		s.must(first.task.Kill(s.context(), unix.SIGKILL))
		s.see("exit of the first", "%d", first.wait())
		s.see("exit", "%d", c.wait())
		left(c)
		for _, x := range []*container{first, c} {
			st, err := x.task.Delete(s.context())
			s.must(err)
			s.see("a deletion", "%d", st.ExitCode())
		}
	})
}

package libct

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"
)

// stopAnew lets a dump take hold of processes that a signal has stopped, in a container
// that is frozen.
//
// With cgroup v1 CRIU, that attaches to such a process, waits for ever: the kernel
// has a stopped process change its kind of stop before ptrace(PTRACE_SEIZE) returns, and
// a frozen one does nothing. So its stop is taken back and asked for again, while it cannot
// run. CRIU takes who has a stop before him for stopped, and stops him again after the
// dump. His parent may learn that he was continued, and stopped.
func (c *Container) stopAnew() error {
	if cgroups.IsCgroup2UnifiedMode() {
		return nil
	}
	if st, err := c.c.Status(); err != nil || st != libcontainer.Paused {
		return err
	}
	pids, err := c.PIDs()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if !stopped(pid) {
			continue
		}
		// The second takes the first out of the queue again.
		for _, sig := range []unix.Signal{unix.SIGCONT, unix.SIGSTOP} {
			if err := unix.Kill(pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("stop process %d anew: %w", pid, err)
			}
		}
	}
	return nil
}

// stopped says that a frozen process was stopped before. Its state tells only that it
// is frozen; where it sleeps in the kernel tells more.
func stopped(pid int) bool {
	place, err := os.ReadFile(fmt.Sprintf("/proc/%d/wchan", pid))
	return err == nil && strings.HasPrefix(string(place), "do_signal_stop")
}

package pager

import (
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// guard has copies of the userfaultfds that a pager has. A copy of one that the pager
// has closed, because it has delivered all pages of a process, makes the process wait
// for nothing: it is closed, too, at the next look.
type guard struct {
	pid, pidfd int
	// copies are ours, by the pager's numbers.
	copies map[int]int
}

// interval is the time between two looks: what a process may have to wait at most
// once the pager is done with it, and it alone; and how long a process that was just
// restored or forked has nobody but the pager.
const interval = 5 * time.Millisecond

// kind is what the kernel calls a userfaultfd in /proc/PID/fd.
const kind = "anon_inode:[userfaultfd]"

func newGuard(pid, pidfd int) *guard { return &guard{pid: pid, pidfd: pidfd, copies: map[int]int{}} }

// run looks until the pager has ended, as long as attend says that there may be something to see.
func (g *guard) run(attend *atomic.Bool) {
	for {
		if attend.Load() {
			g.look()
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(g.pidfd), Events: unix.POLLIN}}, int(interval/time.Millisecond))
		if n > 0 || err != nil && err != unix.EINTR {
			return
		}
	}
}

// look copies what is new, and closes what the pager has closed.
func (g *guard) look() {
	dir := fmt.Sprintf("/proc/%d/fd", g.pid)
	names, err := os.ReadDir(dir)
	if err != nil {
		return // it has just ended
	}
	seen := map[int]bool{}
	for _, e := range names {
		n, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if link, err := os.Readlink(dir + "/" + e.Name()); err != nil || link != kind {
			continue
		}
		seen[n] = true
		if c, ok := g.copies[n]; ok {
			if g.same(c, n) {
				continue
			}
			unix.Close(c)
			delete(g.copies, n)
		}
		if c, err := unix.PidfdGetfd(g.pidfd, n, 0); err == nil {
			g.copies[n] = c
		}
	}
	// Of a dying process the kernel shows no descriptors at all before it closes them. As long
	// as it shows one, the pager itself has closed what we did not see.
	if _, err := os.Readlink(dir + "/0"); err != nil {
		return
	}
	for n, c := range g.copies {
		if !seen[n] {
			unix.Close(c)
			delete(g.copies, n)
		}
	}
}

// same says that our descriptor c is still the pager's n (kcmp(2)), and not of a process
// that was forked since. A kernel that cannot tell is believed to say yes.
func (g *guard) same(c, n int) bool {
	const file = 0 // KCMP_FILE
	r, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(os.Getpid()), uintptr(g.pid), file, uintptr(c), uintptr(n), 0)
	return errno != 0 || r == 0
}

func (g *guard) close() {
	for _, c := range g.copies {
		unix.Close(c)
	}
	g.copies = nil
}

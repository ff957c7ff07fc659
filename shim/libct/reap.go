package libct

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// reap waits for the root of a tree whose restore failed. CRIU clones it with
// CLONE_PARENT, so it is our child, and nobody else will wait for it. pid is 0
// where CRIU failed before it told it; the dead are then looked for.
func reap(pid int) {
	if pid > 0 {
		wait(pid)
		waitedFor.Delete(pid)
		return
	}
	for _, child := range children() {
		if abandonedRoot(child) {
			wait(child)
		}
	}
}

// wait takes a dead child's status. A child that does not die in time is left:
// to whoever waits next, it is no worse than to one who would wait for ever.
func wait(pid int) {
	_ = retry(waitAttempts, func() error {
		got, err := unix.Wait4(pid, nil, unix.WNOHANG, nil)
		if err == unix.EINTR || err == nil && got == 0 {
			return unix.EAGAIN
		}
		return nil
	})
}

// waitAttempts are 5 s in all, with retry's pauses.
const waitAttempts = 11

// watch closes died some time after one of the processes has exited: long
// enough for a CRIU that has succeeded to say so. stop ends it.
func watch(pids ...int) (died <-chan struct{}, stop func()) {
	dead, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		if !awaitExit(pids, stopped) {
			return
		}
		select {
		case <-time.After(watchGrace):
			close(dead)
		case <-stopped:
		}
	}()
	return dead, sync.OnceFunc(func() { close(stopped) })
}

const (
	// watchInterval is how soon a stopped watch ends, in milliseconds.
	watchInterval = 100
	watchGrace    = time.Second
)

// awaitExit waits until one of the processes has exited, or until stopped.
func awaitExit(pids []int, stopped <-chan struct{}) bool {
	var fds []unix.PollFd
	defer func() {
		for _, fd := range fds {
			unix.Close(int(fd.Fd))
		}
	}()
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			return true
		}
		fds = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	for {
		n, err := unix.Poll(fds, watchInterval)
		select {
		case <-stopped:
			return false
		default:
		}
		if n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
			return true
		}
	}
}

// children lists the processes whose parent is ours.
func children() []int {
	var pids []int
	files, _ := filepath.Glob("/proc/self/task/*/children")
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		for s := range bytes.FieldsSeq(data) {
			if pid, err := strconv.Atoi(string(s)); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// waitedFor holds the pids of the processes that somebody waits for.
var waitedFor sync.Map

// Claim says that the caller waits for a child of its own making, until done is called.
func Claim(pid int) (done func()) {
	waitedFor.Store(pid, struct{}{})
	return func() { waitedFor.Delete(pid) }
}

// abandonedRoot says that pid is a dead first process of a pid namespace for
// which nobody waits.
func abandonedRoot(pid int) bool {
	c := look(pid)
	return c.zombie && c.nested && c.first
}

// forgottenCRIU returns the pids of dead children in our own session for which nobody
// waits. A CRIU that has ended is among them for a moment.
func forgottenCRIU() []int {
	return slices.DeleteFunc(children(), func(pid int) bool {
		c := look(pid)
		return !c.zombie || !c.ours
	})
}

// child is what is to be known of a child.
type child struct {
	// zombie: it is dead, and nobody waits for it. Nothing else is known if it is not.
	zombie bool
	// nested: it is in a pid namespace below ours; first: as the first process of one.
	nested, first bool
	// ours: it is in our session; leads: it leads one.
	ours, leads bool
}

// look looks at a child.
func look(pid int) child {
	if _, ok := waitedFor.Load(pid); ok {
		return child{}
	}
	st, ok := stat(pid)
	if !ok || st.state != "Z" {
		return child{}
	}
	c := child{zombie: true, leads: st.session == pid}
	if self, ok := stat(os.Getpid()); ok {
		c.ours = st.session == self.session
	}
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return child{}
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, "NSpid:"); ok {
			f := strings.Fields(value)
			c.nested = len(f) > 1
			c.first = len(f) > 0 && f[len(f)-1] == "1"
		}
	}
	return c
}

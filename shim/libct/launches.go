package libct

import (
	"bytes"
	"fmt"
	"os"
	"sync"
)

// launches counts the processes that libcontainer is starting right now.
//
// Where init dies while a process is being started in its container,
// libcontainer gives up before it has heard of the processes that it began to
// make, one of them in the container's pid namespace. They are children of ours,
// and nobody waits for them; until somebody does, the kernel keeps the
// namespace's init from ending, and the task would run for ever. Whoever is the
// last to have started something sees to it: before that, a process that nobody
// waits for may be one of which libcontainer is going to tell.
type launches struct {
	mu     sync.Mutex
	n      int
	failed bool
}

var launching launches

func (l *launches) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.n++
}

// end is called when the started process is one that somebody waits for, or
// with the error.
func (l *launches) end(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.n--
	l.failed = l.failed || err != nil
	if l.n > 0 {
		return
	}
	select {
	case adopted.again <- struct{}{}:
	default:
	}
	if !l.failed {
		return
	}
	l.failed = false
	for _, pid := range children() {
		if _, ok := waitedFor.Load(pid); !ok && unfinished(pid) {
			// It dies with the namespace, or for lack of a parent to talk to.
			go wait(pid)
		}
	}
}

// unless calls f if nothing is being started, and keeps others from it meanwhile.
func (l *launches) unless(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.n == 0 {
		f()
	}
}

// unfinished says that a process has not come to execute its program:
// libcontainer calls such ones "runc:[0:PARENT]", "runc:[1:CHILD]" and "runc:[2:INIT]".
func unfinished(pid int) bool {
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return err == nil && bytes.HasPrefix(name, []byte("runc:["))
}

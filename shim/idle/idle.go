// Package idle gives back the memory of a shim that has nothing to do. Most of
// what a shim holds it needed only to start its container: garbage, and the
// pages of its own program that it went through once. A node has a shim for
// each pod, and most of them wait for months.
//
// Trimmer.mu guards its fields and is not held during a trim.
package idle

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// quiet is how long nothing must have been asked of the shim. Containers
	// that live shorter cost no trim.
	quiet = time.Second
	// slack is by how many bytes the shim must have grown since the last trim
	// for the next to be worth its time, about a millisecond.
	slack = 512 << 10
)

// Trimmer trims the process's memory whenever it has been left alone for a while.
type Trimmer struct {
	mu    sync.Mutex
	timer *time.Timer
	// resident is what the last trim left.
	resident int64
}

// Busy says that something was asked of the shim: the next trim is put off.
func (t *Trimmer) Busy() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.timer == nil {
		t.timer = time.AfterFunc(quiet, t.trim)
		return
	}
	t.timer.Reset(quiet)
}

// trim makes the process small. What goes wrong leaves it as large as it was.
func (t *Trimmer) trim() {
	t.mu.Lock()
	last := t.resident
	t.mu.Unlock()
	if last > 0 && resident() < last+slack {
		return
	}
	debug.FreeOSMemory()
	dropProgram()
	t.mu.Lock()
	t.resident = resident()
	t.mu.Unlock()
}

// resident is the number of bytes that the process has in memory (proc_pid_statm(5)).
func resident() int64 {
	var size, pages int64
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	if _, err := fmt.Sscan(string(data), &size, &pages); err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}

// dropProgram unmaps the pages of the program's own file. They stay in the page
// cache, from where the kernel maps again, many at a time, those that are used.
func dropProgram() {
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	smaps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return
	}
	defer smaps.Close()
	for _, a := range droppable(smaps, self) {
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, a.from, a.to-a.from, unix.MADV_DONTNEED)
	}
}

// area is a part of the address space.
type area struct{ from, to uintptr }

// droppable finds in the text of /proc/PID/smaps the areas that map the file and
// hold nothing but it. An area that is only read now may have been written
// before, by the dynamic linker: it has anonymous pages then, and is left alone.
func droppable(smaps io.Reader, file string) []area {
	var found []area
	var a area
	candidate := false
	for s := bufio.NewScanner(smaps); s.Scan(); {
		// 00400000-00b4e000 r-xp 00000000 08:02 173521    /usr/local/bin/containerd-shim-snap-v2
		// Anonymous:             0 kB
		f := strings.Fields(s.Text())
		switch {
		case len(f) == 0:
		case strings.HasSuffix(f[0], ":"):
			if candidate && f[0] == "Anonymous:" && len(f) == 3 && f[1] == "0" {
				found = append(found, a)
			}
		default:
			n, err := fmt.Sscanf(f[0], "%x-%x", &a.from, &a.to)
			candidate = err == nil && n == 2 && len(f) > 1 && strings.HasPrefix(f[1], "r-") && strings.HasSuffix(f[1], "p") &&
				strings.HasSuffix(s.Text(), " "+file)
		}
	}
	return found
}

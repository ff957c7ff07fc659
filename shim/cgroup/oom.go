package cgroup

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// OOMWatch tells of the kernel's killing for lack of memory in one cgroup.
type OOMWatch struct {
	// notify is an eventfd (v1) or an inotify descriptor (v2), in Go's poller,
	// so that closing it ends the watching goroutine.
	notify *os.File
	// counter is the file with the line "oom_kill N".
	counter string
	on      func()
	stop    sync.Once
	// stopping is closed by Stop, done by the watching goroutine.
	stopping, done chan struct{}

	// mu guards told.
	mu sync.Mutex
	// told is the count up to which on has been called.
	told int
}

// WatchOOM calls on when the kernel has killed in the cgroup from now on, once
// for kills that come together, from one goroutine at a time. paths are the cgroup's directories: by controller on v1, "" on v2.
func WatchOOM(paths map[string]string, on func()) (*OOMWatch, error) {
	w := &OOMWatch{on: on, stopping: make(chan struct{}), done: make(chan struct{})}
	var err error
	// A hybrid host has both, and the memory controller in v1.
	if dir, ok := paths["memory"]; ok {
		w.counter = filepath.Join(dir, "memory.oom_control")
		w.notify, err = notifyV1(dir, w.counter)
	} else if dir, ok := paths[""]; ok {
		w.counter = filepath.Join(dir, "memory.events")
		w.notify, err = notifyV2(w.counter)
	} else {
		return nil, fmt.Errorf("watch for out-of-memory: the container has no memory cgroup")
	}
	if err != nil {
		return nil, fmt.Errorf("watch %s for out-of-memory: %w", w.counter, err)
	}
	// A cgroup that its user reuses, or in which a restore failed, has a past.
	w.told = w.count()
	go w.run()
	return w, nil
}

func (w *OOMWatch) run() {
	defer close(w.done)
	buf := make([]byte, 4096)
	for {
		if _, err := w.notify.Read(buf); err != nil {
			return
		}
		// On v1 the notification comes a moment before the kill is counted.
		for i := 0; !w.tell() && i < countTries; i++ {
			select {
			case <-time.After(countPause):
			case <-w.stopping:
				return
			}
		}
	}
}

const (
	countTries = 20
	countPause = 5 * time.Millisecond
)

// tell calls on if the kernel has killed since it was last called.
func (w *OOMWatch) tell() bool {
	n := w.count()
	w.mu.Lock()
	defer w.mu.Unlock()
	if n <= w.told {
		return false
	}
	w.told = n
	w.on()
	return true
}

// Stop ends the watch. What the kernel killed until now has been told when it
// returns, so that whoever reports an exit after it reports the kill before.
// It may be called twice, and on nil.
func (w *OOMWatch) Stop() {
	if w == nil {
		return
	}
	w.stop.Do(func() {
		close(w.stopping)
		w.notify.Close()
		<-w.done
		w.tell()
	})
}

// count is the number of kills so far; 0 once the cgroup is gone.
func (w *OOMWatch) count() int {
	data, err := os.ReadFile(w.counter)
	if err != nil {
		return 0
	}
	return oomKills(data)
}

// oomKills reads the line "oom_kill N" of memory.events (v2) or
// memory.oom_control (v1, since Linux 4.13).
func oomKills(data []byte) int {
	for line := range bytes.Lines(data) {
		if f := bytes.Fields(line); len(f) == 2 && string(f[0]) == "oom_kill" {
			n, _ := strconv.Atoi(string(f[1]))
			return n
		}
	}
	return 0
}

// notifyV1 registers an eventfd for the cgroup's out-of-memory notifications
// (Documentation/admin-guide/cgroup-v1/memory.rst, section 10).
func notifyV1(dir, counter string) (*os.File, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "oom-eventfd")
	control, err := os.Open(counter)
	if err == nil {
		defer control.Close()
		line := fmt.Sprintf("%d %d", fd, control.Fd())
		err = os.WriteFile(filepath.Join(dir, "cgroup.event_control"), []byte(line), 0)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// notifyV2 watches memory.events, which the kernel marks as modified when a
// count in it changes (Documentation/admin-guide/cgroup-v2.rst).
func notifyV2(events string) (*os.File, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "oom-inotify")
	if _, err := unix.InotifyAddWatch(fd, events, unix.IN_MODIFY); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

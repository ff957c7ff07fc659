package pager

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// recordFile names the pager's process in the work directory, for whoever cleans up after
// a shim that died.
const recordFile = "lazy-pages.pid"

func record(work string, pid int) error {
	birth, err := birthOf(pid)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(work, recordFile), fmt.Appendf(nil, "%d %d\n", pid, birth), 0o600)
}

// forget removes what a pager leaves in its work directory beside its log.
func forget(work string) {
	for _, name := range []string{socket, recordFile} {
		_ = os.Remove(filepath.Join(work, name))
	}
}

// Remove ends the pager that a shim which died has left, if it is still there.
//
// Precondition: the task is dead.
func Remove(work string) error {
	defer forget(work)
	data, err := os.ReadFile(filepath.Join(work, recordFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find the pager: %w", err)
	}
	var pid int
	var birth uint64
	if _, err := fmt.Sscan(string(data), &pid, &birth); err != nil || pid <= 0 {
		return nil // it was being written when the shim died, before any restore
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil // it has ended
	}
	defer unix.Close(fd)
	if now, err := birthOf(pid); err != nil || now != birth {
		return nil // it has ended, and the number is another's
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("end the pager, process %d: %w", pid, err)
	}
	return nil
}

// birthOf is when a process was started, in clock ticks since boot: with its number it
// names one process for ever (proc_pid_stat(5), starttime).
func birthOf(pid int) (uint64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name, in parentheses, may hold anything. The state after it is field 3.
	f := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:])
	const starttime = 22 - 3
	if len(f) <= starttime {
		return 0, fmt.Errorf("process %d: /proc/PID/stat has %d fields", pid, len(f))
	}
	return strconv.ParseUint(string(f[starttime]), 10, 64)
}

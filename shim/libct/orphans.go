package libct

import (
	"bytes"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// killOrphans ends what a CRIU of ours that was killed left: helpers that it
// forks to try the kernel's features, which wait for it for ever and keep its
// socket open. They are in our process group, as CRIU is, and have a parent
// that is not.
func killOrphans() {
	group := unix.Getpgrp()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		parent, g, ok := family(pid)
		if !ok || g != group {
			continue
		}
		if _, pg, ok := family(parent); ok && pg == group {
			continue
		}
		cmdline, err := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if err == nil && slices.Contains(strings.Split(string(cmdline), "\x00"), "swrk") {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}

// family returns a process's parent and process group, as /proc/PID/stat has
// them (proc_pid_stat(5)).
func family(pid int) (parent, group int, ok bool) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0, false
	}
	// The name, in parentheses, may hold anything.
	_, rest, _ := bytes.Cut(data[bytes.LastIndexByte(data, ')')+1:], []byte(" "))
	f := strings.Fields(string(rest))
	if len(f) < 3 {
		return 0, 0, false
	}
	parent, err1 := strconv.Atoi(f[1])
	group, err2 := strconv.Atoi(f[2])
	return parent, group, err1 == nil && err2 == nil
}

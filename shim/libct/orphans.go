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
		p, ok := stat(pid)
		if !ok || p.group != group {
			continue
		}
		if parent, ok := stat(p.parent); ok && parent.group == group {
			continue
		}
		cmdline, err := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if err == nil && slices.Contains(strings.Split(string(cmdline), "\x00"), "swrk") {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}

// status is what /proc/PID/stat says (proc_pid_stat(5)).
type status struct {
	// state is Z for a dead process that was not waited for.
	state                  string
	parent, group, session int
}

func stat(pid int) (st status, ok bool) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return st, false
	}
	// The name, in parentheses, may hold anything.
	f := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(f) < 4 {
		return st, false
	}
	st.state = f[0]
	for n, to := range []*int{&st.parent, &st.group, &st.session} {
		if *to, err = strconv.Atoi(f[n+1]); err != nil {
			return st, false
		}
	}
	return st, true
}

package pressure

import (
	"os/exec"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// startUnlimited starts a command for which each change of the limit of open
// files succeeds, and none is made: containerd-stress wants to be allowed 100,000 open
// files, for the few that it needs, and ends where root may not raise the limit.
func startUnlimited(cmd *exec.Cmd) error {
	started := make(chan error, 1)
	go func() {
		// The filter is this thread's and its children's. It is never unlocked:
		// the thread ends with the goroutine.
		runtime.LockOSThread()
		if err := ignoreLimits(); err != nil {
			started <- err
			return
		}
		started <- cmd.Start()
	}()
	return <-started
}

// secondArgument is where a filter finds it, on machines whose low byte comes first.
const secondArgument = 24

// ignoreLimits makes prlimit do nothing, successfully, for open files (seccomp(2)).
func ignoreLimits() error {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the system call's number
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_PRLIMIT64, Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: secondArgument},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.RLIMIT_NOFILE, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0)
}

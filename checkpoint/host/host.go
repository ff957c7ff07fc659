// Package host finds out what this node offers for a restore.
//
// It reads the kernel's answers and nothing else, in well under a millisecond,
// because it is on the way of every start. It does not look for CRIU
// (checkpoint/criu does) and judges nothing (checkpoint/match does). It has no
// state and no locks.
package host

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
)

const (
	cpuinfoPath = "/proc/cpuinfo"
	cgroupPath  = "/sys/fs/cgroup"
)

// Facts returns this node's facts. criuVersion is that of the CRIU which would
// restore, as in checkpoint.HostFacts; 0 if there is none.
//
// Errors are those of asking the kernel. On x86 and arm, not to find the
// processor's features is one: a checkpoint must not be taken for one that needs
// none.
func Facts(criuVersion int) (checkpoint.HostFacts, error) {
	release, err := kernelRelease()
	if err != nil {
		return checkpoint.HostFacts{}, err
	}
	flags, err := features(cpuinfoPath, runtime.GOARCH)
	if err != nil {
		return checkpoint.HostFacts{}, err
	}
	cgroup, err := cgroupVersion(cgroupPath)
	if err != nil {
		return checkpoint.HostFacts{}, err
	}
	return checkpoint.HostFacts{
		Arch:        runtime.GOARCH,
		Kernel:      release,
		CPUFeatures: flags,
		CRIU:        criuVersion,
		Cgroup:      cgroup,
	}, nil
}

func kernelRelease() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", fmt.Errorf("read kernel release: %w", os.NewSyscallError("uname", err))
	}
	return unix.ByteSliceToString(u.Release[:]), nil
}

// cgroupVersion returns "v2" where the unified hierarchy alone is mounted at
// path. A hybrid layout has its controllers in v1, and counts as that.
func cgroupVersion(path string) (string, error) {
	var st unix.Statfs_t
	for {
		err := unix.Statfs(path, &st)
		if err == nil {
			break
		}
		if err != unix.EINTR {
			return "", fmt.Errorf("read cgroup version: %w", &os.PathError{Op: "statfs", Path: path, Err: err})
		}
	}
	if st.Type == unix.CGROUP2_SUPER_MAGIC {
		return "v2", nil
	}
	return "v1", nil
}

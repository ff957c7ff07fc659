package cgroup

import (
	"os"
	"path/filepath"

	"github.com/containerd/log"
	"github.com/opencontainers/cgroups"
)

// Hasten lets the kernel begin, aside, what the first process has to wait for that is moved to
// another cgroup: nobody may fork meanwhile, and for the kernel to be sure of that takes a grace
// period of RCU, 5 to 15 ms (percpu_down_write of cgroup_threadgroup_rwsem; the mount option
// favordynmods spares it). Moves that follow within about as much time wait for nothing. It
// moves this process to the cgroup that it is in.
func Hasten() {
	go func() {
		path, err := own()
		if err == nil {
			err = os.WriteFile(filepath.Join(path, "cgroup.procs"), []byte("0"), 0)
		}
		if err != nil {
			log.L.WithError(err).Debug("hasten the first move to a cgroup")
		}
	}()
}

// own is the directory of the cgroup that this process is in, on v1 in the hierarchy of freezers.
func own() (string, error) {
	if !cgroups.IsCgroup2UnifiedMode() {
		return cgroups.GetOwnCgroupPath("freezer")
	}
	groups, err := cgroups.ParseCgroupFile("/proc/self/cgroup")
	return filepath.Join("/sys/fs/cgroup", groups[""]), err
}

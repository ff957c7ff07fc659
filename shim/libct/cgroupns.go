package libct

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"
)

// holder is the name under which our binary, executed again, makes a cgroup
// namespace (cgroupns_c.go).
const holder = "snap-cgroupns"

// cgroupNamespace makes a cgroup namespace whose root is the cgroup of cm,
// which it makes too. CRIU, told to leave cgroups alone, restores processes
// into its own namespace, so it must be started in the container's (runc issue
// 5417). Only a process inside a cgroup can make a namespace rooted there.
func cgroupNamespace(cm cgroups.Manager) (_ *os.File, retErr error) {
	ctx, cancel := context.WithTimeout(context.Background(), holderTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = []string{holder}
	cmd.Env = []string{}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("make a cgroup namespace: %w", err)
	}
	// It must have left the cgroup before CRIU comes, or the cgroup would not
	// be empty after a failure.
	defer func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil && retErr == nil {
			retErr = fmt.Errorf("make a cgroup namespace: %w", err)
		}
	}()
	if err := cm.Apply(cmd.Process.Pid); err != nil {
		return nil, fmt.Errorf("make a cgroup namespace: %w", err)
	}
	b := []byte{0}
	if _, err := stdin.Write(b); err != nil {
		return nil, fmt.Errorf("make a cgroup namespace: %w", err)
	}
	if _, err := stdout.Read(b); err != nil {
		return nil, fmt.Errorf("make a cgroup namespace: %w", err)
	}
	return os.Open(fmt.Sprintf("/proc/%d/ns/cgroup", cmd.Process.Pid))
}

const holderTimeout = 10 * time.Second

// inNamespace runs f in the cgroup namespace ns, for the processes that f
// starts; with nil it just runs f. It is for a thread that ends afterwards.
func inNamespace(ns *os.File, f func() error) error {
	if ns == nil {
		return f()
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("enter the cgroup namespace: %w", err)
	}
	return f()
}

// wantsCgroupNamespace says that the container is to have a new cgroup namespace.
func wantsCgroupNamespace(cfg *configs.Config) bool {
	return cfg.Namespaces.IsPrivate(configs.NEWCGROUP)
}

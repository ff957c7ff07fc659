package libct

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/shim/inherit"
)

// Destroy removes cgroup and state. Its processes must have ended, but for an
// init that was never released. It succeeds if nothing is there.
func (c *Container) Destroy() error {
	defer inherit.Guard()()
	// The kernel takes a moment to empty a cgroup whose processes have died.
	destroy := func() error { return retry(destroyAttempts, func() error { return c.c.Destroy() }) }
	if _, err := os.Stat(c.spec.Bundle); err != nil || c.spec.OCI == nil || c.spec.OCI.Hooks == nil {
		return destroy()
	}
	return onThread(func() error { return inBundle(c.spec.Bundle, destroy) })
}

// retry calls f until it succeeds, with growing pauses.
func retry(attempts int, f func() error) error {
	pause := retryStart
	for {
		err := f()
		attempts--
		if err == nil || attempts == 0 {
			return err
		}
		time.Sleep(pause)
		pause *= 2
	}
}

// Remove removes what a container left of whose shim nothing is known: it ends
// its processes and removes cgroup, mounts and state, as far as they exist.
func (r Runtime) Remove(s Spec) error {
	var errs []error
	// A restore that was cut off leaves its bind mount of the rootfs here.
	criuRoot := filepath.Join(r.Root, s.ID, "criu-root")
	if err := unix.Unmount(criuRoot, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
		errs = append(errs, fmt.Errorf("unmount %s: %w", criuRoot, err))
	}
	cm, err := s.cgroupManager()
	if err != nil {
		return err
	}
	if err := killCgroup(cm); err != nil {
		errs = append(errs, err)
	}
	c, err := libcontainer.Load(r.Root, s.ID)
	if err == nil {
		if err = r.wrap(s, c).Destroy(); err != nil {
			errs = append(errs, err)
		}
	}
	if err != nil {
		// It died in its making and has no state; or one of its processes takes
		// its time to die and counts as running. Nobody will come back for it.
		errs = append(errs, retry(destroyAttempts, cm.Destroy), os.RemoveAll(filepath.Join(r.Root, s.ID)))
	}
	return errors.Join(errs...)
}

// killCgroup ends all processes of a cgroup and waits until they are gone.
func killCgroup(cm cgroups.Manager) error {
	if !cm.Exists() {
		return nil
	}
	if err := cm.Freeze(cgroups.Thawed); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("thaw cgroup: %w", err)
	}
	return retry(destroyAttempts, func() error {
		pids, err := cm.GetAllPids()
		if err != nil {
			if errors.Is(err, os.ErrNotExist) {
				return nil
			}
			return fmt.Errorf("list cgroup: %w", err)
		}
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		if len(pids) > 0 {
			return fmt.Errorf("%d processes are left in the cgroup", len(pids))
		}
		return nil
	})
}

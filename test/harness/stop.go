package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

const (
	stopTimeout   = 60 * time.Second
	settleTimeout = 10 * time.Second
)

// Stop deletes the node's containers, ends containerd and removes everything of
// the node. What was still there after the deletions is returned: the deletion
// of a container should have removed it.
func (n *Node) Stop(ctx context.Context) (Leftovers, error) {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	var errs []error
	if n.client != nil {
		errs = append(errs, n.DeleteContainers(ctx))
	}
	left, err := n.Settle(ctx)
	errs = append(errs, err)
	if n.client != nil {
		errs = append(errs, n.client.Close())
	}
	errs = append(errs, n.stopDaemon(), n.Sweep())
	if n.cri != nil {
		errs = append(errs, n.cri.release())
	}
	for _, dir := range n.cgroupTops() {
		errs = append(errs, unix.Rmdir(dir))
	}
	return left, errors.Join(append(errs, os.RemoveAll(n.Dir))...)
}

// End stops the node, like Stop, within a minute. Something left over is an error.
func (n *Node) End() error {
	left, err := n.Stop(context.Background())
	if !left.Empty() {
		err = errors.Join(err, fmt.Errorf("something was left on the node when its containers were deleted:\n%s", left))
	}
	return err
}

// DeleteContainers ends and deletes all containers of the node.
func (n *Node) DeleteContainers(ctx context.Context) error {
	containers, err := n.client.Containers(ctx)
	if err != nil {
		return fmt.Errorf("list the node's containers: %w", err)
	}
	var errs []error
	for _, c := range containers {
		task, err := c.Task(ctx, nil)
		if err == nil {
			_, err = task.Delete(ctx, client.WithProcessKill)
		}
		if err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("delete task %s: %w", c.ID(), err))
		}
		if err := c.Delete(ctx, client.WithSnapshotCleanup); err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("delete container %s: %w", c.ID(), err))
		}
	}
	return errors.Join(errs...)
}

// Settle waits until nothing is left over, but not for long: shims end, and the
// kernel removes namespaces, a moment after a task's deletion. It returns what
// is there in the end.
func (n *Node) Settle(ctx context.Context) (Leftovers, error) {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	for {
		l, err := n.Leftovers()
		if err != nil || l.Empty() {
			return l, err
		}
		select {
		case <-ctx.Done():
			return l, nil
		case <-time.After(pollInterval):
		}
	}
}

// stopDaemon ends containerd.
func (n *Node) stopDaemon() error {
	if n.cmd == nil {
		return nil
	}
	for _, sig := range []syscall.Signal{unix.SIGTERM, unix.SIGKILL} {
		if err := n.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("end containerd: %w", err)
		}
		select {
		case <-n.exited:
			return nil
		case <-time.After(settleTimeout):
		}
	}
	return fmt.Errorf("end containerd: process %d does not end", n.cmd.Process.Pid)
}

// Sweep removes by force what is left over.
func (n *Node) Sweep() error {
	var errs []error
	// More than one round: a process that is killed may be making another.
	for range 100 {
		l, err := n.Leftovers()
		if err != nil {
			return err
		}
		n.thaw(l)
		for _, p := range l.Processes {
			_ = unix.Kill(p.PID, unix.SIGKILL)
		}
		if len(l.Processes) == 0 {
			break
		}
		time.Sleep(pollInterval)
	}
	l, err := n.Leftovers()
	errs = append(errs, err)
	for _, m := range slices.Backward(l.Mounts) {
		if err := unix.Unmount(m, unix.MNT_DETACH); err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: %w", m, err))
		}
	}
	for _, dir := range slices.Backward(l.Cgroups) {
		if err := unix.Rmdir(dir); err != nil {
			errs = append(errs, fmt.Errorf("remove cgroup %s: %w", dir, err))
		}
	}
	for _, f := range l.Files {
		errs = append(errs, os.RemoveAll(f))
	}
	return errors.Join(errs...)
}

// thaw lets frozen processes die. Only cgroup v1 keeps them from it.
func (n *Node) thaw(l Leftovers) {
	for _, dir := range l.Cgroups {
		// The file exists in one hierarchy only.
		if f, err := os.OpenFile(filepath.Join(dir, "freezer.state"), os.O_WRONLY, 0); err == nil {
			_, _ = f.WriteString("THAWED")
			f.Close()
		}
	}
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/test/harness"
)

// enteredEnv marks the process that is in namespaces and cgroups of its own, and
// holds the latter.
const enteredEnv = "SNAP_CONFORMANCE_ENTERED"

// script is the first process of the namespaces: it buries what others leave. It
// waits until it is in its cgroups before it makes a namespace of them.
const script = `read -r _ && exec unshare --cgroup --net --pid --fork --kill-child=SIGKILL --mount-proc /bin/sh -c '"$@"; exit $?' sh "$@"`

// enter runs this program again in mount, network, process and cgroup namespaces
// of its own: port 443 of 127.0.0.1 is free there, and whatever runs in the end,
// ends with them. entered is true in the process that is there, which gets the
// roots of its hierarchies of cgroups.
func enter(ctx context.Context) (roots []string, entered bool, err error) {
	if os.Geteuid() != 0 {
		return nil, false, errors.New("run the test-suite: this needs root")
	}
	if given := os.Getenv(enteredEnv); given != "" {
		var own [][2]string
		if err := json.Unmarshal([]byte(given), &own); err != nil {
			return nil, false, fmt.Errorf("enter cgroups: %w", err)
		}
		for _, o := range own {
			if err := (hierarchy{mount: o[0], dir: o[1]}).mountOwn(); err != nil {
				return nil, false, fmt.Errorf("enter cgroups: %w", err)
			}
			roots = append(roots, o[0])
		}
		return roots, true, nil
	}
	if err := harness.EnterPrivate(); err != nil {
		return nil, false, err
	}
	all, err := makeCgroups()
	if err == nil {
		err = again(ctx, all)
	}
	for _, h := range all {
		err = errors.Join(err, h.remove())
	}
	return nil, false, err
}

// errInside is the failure of the process that is in the namespaces, which has said why.
var errInside = errors.New("see above")

// again runs this program again, in the cgroups.
func again(ctx context.Context, cgroups []hierarchy) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("enter namespaces: %w", err)
	}
	var own [][2]string
	for _, h := range cgroups {
		own = append(own, [2]string{h.mount, h.dir})
	}
	given, err := json.Marshal(own)
	if err != nil {
		return fmt.Errorf("enter namespaces: %w", err)
	}
	// The parent's death signal is that of the thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, "/bin/sh", append([]string{"-c", script, "sh", self}, os.Args[1:]...)...)
	cmd.Env = append(os.Environ(), enteredEnv+"="+string(given))
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	// Alone in a group, so that a signal of the terminal comes once, from here.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL, Setpgid: true}
	// The first process ignores it; the one that runs the suite cleans up and ends.
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGTERM) }
	cmd.WaitDelay = 2 * endTimeout
	start, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("enter namespaces: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("enter namespaces: %w", err)
	}
	for _, h := range cgroups {
		if err == nil {
			err = h.join(cmd.Process.Pid)
		}
	}
	if err == nil {
		_, err = start.Write([]byte("\n"))
	}
	start.Close()
	if err != nil {
		_ = cmd.Process.Kill()
		return errors.Join(fmt.Errorf("enter cgroups: %w", err), cmd.Wait())
	}
	if err := cmd.Wait(); err != nil {
		return errInside
	}
	return nil
}

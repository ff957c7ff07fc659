package libct

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/shim/inherit"
)

// Runtime makes containers whose state lies below Root, one directory each.
type Runtime struct {
	// Root is the directory of libcontainer's state files, for one namespace.
	Root string
}

// Container is a container that has an init process, or had one.
//
// Its methods may be called from several goroutines; libcontainer serialises
// them with a mutex of the container's own, which it holds during a start and
// a dump. What must work then (Process.Signal) does not take it.
type Container struct {
	root string
	spec Spec
	c    *libcontainer.Container
	// resources are those last applied, for Update to change.
	resources specs.LinuxResources
}

// Boot makes the container and its init, which waits for Release.
// After an error nothing of it is left.
func (r Runtime) Boot(ctx context.Context, s Spec, files Files) (_ *Container, _ *Process, retErr error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	cfg, err := s.config()
	if err != nil {
		return nil, nil, err
	}
	if adopts(cfg) {
		if err := adopt(); err != nil {
			return nil, nil, err
		}
	}
	c, err := libcontainer.Create(r.Root, s.ID, cfg)
	if err != nil {
		return nil, nil, fmt.Errorf("make container %s: %w", s.ID, classify(err))
	}
	launching.begin()
	defer func() { launching.end(retErr) }()
	p, err := process(s.OCI.Process, files)
	if err == nil {
		p.Init = true
		start := func() error {
			defer inherit.Guard()()
			return c.Start(p)
		}
		if s.OCI.Hooks != nil {
			err = onThread(func() error { return inBundle(s.Bundle, start) })
		} else {
			err = start()
		}
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("start the init of container %s: %w", s.ID, err), c.Destroy())
	}
	pid, err := p.Pid()
	if err != nil {
		return nil, nil, errors.Join(err, c.Destroy())
	}
	return r.wrap(s, c), newProcess(pid, p), nil
}

func (r Runtime) wrap(s Spec, c *libcontainer.Container) *Container {
	w := &Container{root: r.Root, spec: s, c: c}
	if s.OCI != nil && s.OCI.Linux != nil && s.OCI.Linux.Resources != nil {
		w.resources = *s.OCI.Linux.Resources
	}
	return w
}

// Release lets a booted init execute the program.
func (c *Container) Release() error {
	defer inherit.Guard()()
	if err := c.c.Exec(); err != nil {
		return fmt.Errorf("release the init of container %s: %w", c.spec.ID, err)
	}
	return nil
}

// Exec starts a further process in the container.
func (c *Container) Exec(ctx context.Context, p *specs.Process, files Files) (_ *Process, retErr error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	lp, err := process(p, files)
	if err != nil {
		return nil, err
	}
	launching.begin()
	defer func() { launching.end(retErr) }()
	done := inherit.Guard()
	err = c.c.Run(lp)
	done()
	if err != nil {
		return nil, err
	}
	pid, err := lp.Pid()
	if err != nil {
		return nil, err
	}
	return newProcess(pid, lp), nil
}

// Freeze and Thaw stop and continue all processes of the container. A frozen
// init has executed the program: before that it is a process of the shim's own
// file, which no checkpoint can hold, and Release returns a moment earlier.
func (c *Container) Freeze() error {
	c.awaitProgram()
	// While a program is being executed by one of init's threads, its first
	// thread looks dead for a moment, and libcontainer takes the container for
	// stopped. And on a busy node with cgroup v1, threads that do not get to run
	// are not frozen in the time that libcontainer gives them.
	var err error
	for range execTries {
		if err = c.c.Pause(); err == nil {
			return nil
		}
		time.Sleep(retryStart)
	}
	return err
}

const (
	// execTries is how often Freeze looks again, retryStart apart.
	execTries = 10
	// initTries is how often it looks whether init is still libcontainer's, which
	// hooks can delay.
	initTries = 200
)

// awaitProgram waits until init has executed the program, but not for long.
func (c *Container) awaitProgram() {
	state, err := c.c.State()
	if err != nil {
		return
	}
	for range initTries {
		if !unfinished(state.InitProcessPid) {
			return
		}
		time.Sleep(retryStart)
	}
}

// Thaw undoes Freeze. It succeeds if the container is not frozen.
func (c *Container) Thaw() error {
	if err := c.c.Resume(); err != nil && !errors.Is(err, libcontainer.ErrNotPaused) {
		return err
	}
	return nil
}

// PIDs lists the processes in the container's cgroup.
func (c *Container) PIDs() ([]int, error) { return c.c.Processes() }

// CgroupPaths are the container's cgroups: by controller on v1, "" on v2.
func (c *Container) CgroupPaths() (map[string]string, error) {
	s, err := c.c.State()
	if err != nil {
		return nil, err
	}
	return s.CgroupPaths, nil
}

// KillAll sends SIGKILL to all processes of the container; a frozen one is
// thawed, or it could not die.
func (c *Container) KillAll() error {
	err := c.c.Signal(unix.SIGKILL)
	if errors.Is(err, libcontainer.ErrNotRunning) || errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// PrivatePIDNS says that the kernel ends all processes of the container with its init.
func (c *Container) PrivatePIDNS() bool {
	cfg := c.c.Config()
	return cfg.Namespaces.IsPrivate(configs.NEWPID)
}

const (
	destroyAttempts = 10
	retryStart      = 5 * time.Millisecond
)

// classify gives libcontainer's errors their classes.
func classify(err error) error {
	switch {
	case errors.Is(err, libcontainer.ErrExist):
		return fmt.Errorf("%w: %w", err, errdefs.ErrAlreadyExists)
	case errors.Is(err, libcontainer.ErrInvalidID):
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	return err
}

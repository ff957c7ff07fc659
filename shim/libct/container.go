package libct

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/specconv"
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

// Process is a process that the shim is the parent of.
type Process struct {
	pid int
	p   *libcontainer.Process
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

// Update changes the container's resources: what r sets replaces what was
// set, what it leaves out stays.
func (c *Container) Update(r *specs.LinuxResources) error {
	merged, err := mergeResources(c.resources, r)
	if err != nil {
		return err
	}
	spec := *c.spec.OCI
	linux := *spec.Linux
	linux.Resources = &merged
	spec.Linux = &linux
	s := c.spec
	s.OCI = &spec
	cg, err := specconv.CreateCgroupConfig(s.createOpts(), nil)
	if err != nil {
		return fmt.Errorf("convert resources: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	// On a view of its own: libcontainer keeps what it is given, and starts no
	// process in a container whose device rules it was told to leave alone.
	view, err := libcontainer.Load(c.root, c.spec.ID)
	if err != nil {
		return fmt.Errorf("load container %s: %w", c.spec.ID, err)
	}
	cfg := view.Config()
	devices := cfg.Cgroups.Resources.Devices
	cgroup := *cfg.Cgroups
	cgroup.Resources = cg.Resources
	cgroup.Resources.Devices = devices
	// Device rules stay as they are: others (device plugins) may have added theirs.
	cgroup.Resources.SkipDevices = true
	cfg.Cgroups = &cgroup
	if err := view.Set(cfg); err != nil {
		return err
	}
	c.resources = merged
	return nil
}

// mergeResources lays the fields that r sets over those of base. A list is
// replaced as a whole.
func mergeResources(base specs.LinuxResources, r *specs.LinuxResources) (specs.LinuxResources, error) {
	var merged specs.LinuxResources
	// As JSON, because an absent field is what both clients and the OCI spec
	// mean by "leave it".
	all, err := object(base)
	if err != nil {
		return merged, err
	}
	changes, err := object(r)
	if err != nil {
		return merged, err
	}
	lay(all, changes)
	data, err := json.Marshal(all)
	if err != nil {
		return merged, err
	}
	if err := json.Unmarshal(data, &merged); err != nil {
		return merged, err
	}
	if m := merged.Memory; m != nil && m.Limit != nil && *m.Limit == -1 && (r.Memory == nil || r.Memory.Swap == nil) {
		// A swap limit without a memory limit is refused by the kernel.
		m.Swap = new(int64)
	}
	if cpu := merged.CPU; cpu != nil && cpu.Idle != nil && cpu.Shares == nil {
		// cpu.weight cannot be written while cpu.idle is set.
		cpu.Shares = new(uint64)
	}
	return merged, nil
}

// object is v as JSON's objects, with numbers as they are.
func object(v any) (map[string]any, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var m map[string]any
	err = dec.Decode(&m)
	return m, err
}

// lay puts the values of over into base, object by object.
func lay(base, over map[string]any) {
	for key, value := range over {
		below, ok := base[key].(map[string]any)
		above, also := value.(map[string]any)
		if ok && also {
			lay(below, above)
		} else {
			base[key] = value
		}
	}
}

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

const (
	destroyAttempts = 10
	retryStart      = 5 * time.Millisecond
)

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

func newProcess(pid int, p *libcontainer.Process) *Process {
	waitedFor.Store(pid, struct{}{})
	return &Process{pid: pid, p: p}
}

// PID is the process's id.
func (p *Process) PID() int { return p.pid }

// Signal sends sig to the process. It works while a dump or restore is under
// way. NotFound after the exit.
func (p *Process) Signal(sig unix.Signal) error {
	err := p.p.Signal(sig)
	if errors.Is(err, os.ErrProcessDone) || errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("process already finished: %w", errdefs.ErrNotFound)
	}
	return err
}

// Wait blocks until the process has exited and returns its exit code, or 128
// plus the number of the signal that ended it. It is called once.
func (p *Process) Wait() (int, error) {
	st, err := p.p.Wait()
	waitedFor.Delete(p.pid)
	if st == nil {
		return 0, err
	}
	ws, ok := st.Sys().(syscall.WaitStatus)
	if !ok {
		return st.ExitCode(), nil
	}
	if ws.Signaled() {
		return exitSignalOffset + int(ws.Signal()), nil
	}
	return ws.ExitStatus(), nil
}

const exitSignalOffset = 128

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

package start

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint/criu"
	"github.com/containerd-snap/snap/checkpoint/mapped"
	"github.com/containerd-snap/snap/config"
	"github.com/containerd-snap/snap/oci/spec"
	"github.com/containerd-snap/snap/shim/cgroup"
	"github.com/containerd-snap/snap/shim/libct"
	"github.com/containerd-snap/snap/shim/lifecycle"
	"github.com/containerd-snap/snap/shim/pager"
	"github.com/containerd-snap/snap/shim/probe"
	"github.com/containerd-snap/snap/shim/rootfs"
	"github.com/containerd-snap/snap/shim/stdio"
)

var _ lifecycle.Init = (*Init)(nil)

// Init is a container with its first process: booted, or being restored.
type Init struct {
	starter *Starter
	req     Request
	oci     *specs.Spec
	plan    *plan
	rootfs  *rootfs.Rootfs
	io      *stdio.Session
	rec     *recorder
	// config is the host's, with what the container's options override.
	config config.Config
	oom    func()
	// settings are what the annotations ask for.
	settings spec.Settings
	// identity tells the program who it is; nil if it did not ask.
	identity *identityDir
	// output watches what the program prints; nil if nobody asked for that.
	output *probe.Output
	// ns are the namespaces made for a restore; nil if there was none.
	ns *libct.Namespaces
	// hooked says that hooks of the container have attached it to a network.
	hooked bool
	// pages are the page files that the restored processes map; their Names are those of
	// the next dump. They are open as long as the task lives, so that it can be captured
	// also when its checkpoint was removed.
	pages    []mapped.Source
	external []criu.ExternalFile
	// pager delivers the memory of a lazy restore; nil if there was none.
	pager *pager.Pager
	// exit gets how init ended, once.
	exit    chan lifecycle.Exit
	endOnce sync.Once

	// mu guards the fields below.
	mu sync.Mutex
	// held is a restore that waits for Start. Exactly one of held and live is
	// set until the end.
	held *libct.Restore
	live *live
	// starting says that Start is finishing a restore, or booting after it failed.
	starting bool
	// queued are the signals that came meanwhile.
	queued []unix.Signal
	// silenced is the network of a task that was ended by its capture, with connections
	// whose peers must not hear of it.
	silenced *connections
	// aborting says that a held restore is being given up.
	aborting bool
}

// live is a container with a running, or startable, init.
type live struct {
	c      *libct.Container
	p      *libct.Process
	cgroup *cgroup.Cgroup
	oom    *cgroup.OOMWatch
}

// Bundle is the container's bundle.
func (i *Init) Bundle() string { return i.req.Bundle }

// Restores says that Start finishes a restore.
func (i *Init) Restores() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.held != nil
}

// PID is init's process id; 0 once a held restore was given up.
func (i *Init) PID() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case i.live != nil:
		return i.live.p.PID()
	case i.held != nil:
		return i.held.PID()
	}
	return 0
}

// Wait blocks until init has ended. OOM kills have been told by then, and the
// exit status is kept in the bundle.
func (i *Init) Wait() lifecycle.Exit { return <-i.exit }

// adopt takes over a container whose init exists, and waits for its exit.
func (i *Init) adopt(ctx context.Context, c *libct.Container, p *libct.Process) error {
	l := &live{c: c, p: p}
	paths, err := c.CgroupPaths()
	if err != nil {
		return fmt.Errorf("find the cgroup of container %s: %w", i.req.ID, err)
	}
	// As under the stock shim, metrics and OOM events that are not to be had
	// are no reason not to run.
	if l.cgroup, err = cgroup.Load(p.PID()); err != nil {
		log.G(ctx).WithError(err).WithField("id", i.req.ID).Warn("no metrics")
	}
	if err := l.cgroup.EnableControllers(); err != nil {
		log.G(ctx).WithError(err).WithField("id", i.req.ID).Debug("enable cgroup controllers")
	}
	if l.oom, err = cgroup.WatchOOM(paths, i.oom); err != nil {
		log.G(ctx).WithError(err).WithField("id", i.req.ID).Warn("no OOM events")
	}
	i.io.CloseProcessFiles()
	if i.req.Stdio.Terminal {
		if err := i.io.ReceiveConsole(ctx); err != nil {
			l.oom.Stop()
			return err
		}
	}
	i.mu.Lock()
	i.live, i.held = l, nil
	i.mu.Unlock()
	go func() {
		status, err := p.Wait()
		if err != nil {
			log.G(ctx).WithError(err).WithField("id", i.req.ID).Error("wait for init")
		}
		l.oom.Stop()
		i.ended(lifecycle.Exit{PID: p.PID(), Status: status, At: time.Now()})
	}()
	return nil
}

// ended notes init's end: in the bundle first, so that it is known even if the
// shim dies before anybody asks.
func (i *Init) ended(e lifecycle.Exit) {
	i.endOnce.Do(func() {
		if e.Status == 0 {
			i.forgetResumePoints()
		}
		if err := WriteExit(i.req.Bundle, e); err != nil {
			log.L.WithError(err).WithField("id", i.req.ID).Error("keep the exit status")
		}
		i.io.Exited()
		i.exit <- e
	})
}

// owner is the identity that the container's resume points belong to.
func (i *Init) owner() string {
	return spec.Owner(i.starter.Namespace, i.req.ID, i.settings.ResumeKey, i.oci)
}

func (i *Init) liveNow() *live {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.live
}

// mustLive returns the container for what needs one that runs.
func (i *Init) mustLive() (*live, error) {
	if l := i.liveNow(); l != nil {
		return l, nil
	}
	return nil, fmt.Errorf("container %s is held in a restore until it is started: %w", i.req.ID, errdefs.ErrFailedPrecondition)
}

// Pause freezes the container.
func (i *Init) Pause(context.Context) error {
	l, err := i.mustLive()
	if err != nil {
		return err
	}
	return l.c.Freeze()
}

// Resume thaws it.
func (i *Init) Resume(context.Context) error {
	l, err := i.mustLive()
	if err != nil {
		return err
	}
	return l.c.Thaw()
}

// Update applies resources.
func (i *Init) Update(_ context.Context, r *specs.LinuxResources) error {
	l, err := i.mustLive()
	if err != nil {
		return err
	}
	return l.c.Update(r)
}

// PIDs lists the container's processes: the held one alone before Start.
func (i *Init) PIDs(context.Context) ([]int, error) {
	if l := i.liveNow(); l != nil {
		return l.c.PIDs()
	}
	if pid := i.PID(); pid != 0 {
		return []int{pid}, nil
	}
	return nil, nil
}

// Stats returns the cgroup's metrics. NotFound before a held restore has a container.
func (i *Init) Stats() (any, error) {
	l, err := i.mustLive()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, errdefs.ErrNotFound)
	}
	return l.cgroup.Stats()
}

// Resize sets the size of init's terminal.
func (i *Init) Resize(width, height uint32) error {
	return i.io.Resize(uint16(width), uint16(height))
}

// CloseStdin gives init the end of its input.
func (i *Init) CloseStdin() error { return i.io.CloseStdin() }

// Close waits for the last output within ctx, and lets go of the streams.
func (i *Init) Close(ctx context.Context) error { return closeStreams(ctx, i.io, i.req.ID) }

// closeStreams drains and closes. Output that nobody took in time is lost and
// told of in the log; it is no reason not to delete the process.
func closeStreams(ctx context.Context, s *stdio.Session, id string) error {
	if err := s.Drain(ctx); err != nil {
		log.G(ctx).WithError(err).WithField("id", id).Warn("drain output")
	}
	return s.Close()
}

// Destroy removes container, mounts and namespaces. Precondition: init has ended.
func (i *Init) Destroy(context.Context) error {
	var errs []error
	if l := i.liveNow(); l != nil {
		l.oom.Stop()
		errs = append(errs, l.c.Destroy())
	}
	i.plan.letGo()
	i.mu.Lock()
	errs = append(errs, i.silenced.letGo())
	i.mu.Unlock()
	errs = append(errs, i.closeMemory(), i.rootfs.Unmount())
	if i.ns != nil {
		errs = append(errs, i.ns.Close())
	}
	return errors.Join(errs...)
}

// files are the process's ends of its streams.
func (i *Init) files() libct.Files {
	f := i.io.ProcessFiles()
	return libct.Files{Stdin: f[0], Stdout: f[1], Stderr: f[2], Console: i.io.ConsoleSocket()}
}

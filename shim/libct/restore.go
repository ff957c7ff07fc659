package libct

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/utils"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/shim/inherit"
	"github.com/containerd-snap/snap/shim/netns"
)

// manageCgroups is CRIU's mode for cgroups at dump and restore: it leaves them
// alone. Its other modes would put a restored task into the cgroup that the
// captured one had; ours inherits its own from CRIU, which libcontainer moves
// there first.
const manageCgroups = "ignore"

// Images says where CRIU finds or writes what.
type Images struct {
	// Dir holds the images. It must exist and hold libcontainer's
	// descriptors.json for a restore.
	Dir string
	// Work is where CRIU writes its logs; made if it does not exist.
	Work string
	// Plain: these are images as runc writes them. The network namespace that
	// they tell of is made anew, and empty but for its loopback interface.
	Plain bool
	// TCPEstablished, FileLocks, ExternalUnixSockets, Terminal are runc's
	// options of those names.
	TCPEstablished, FileLocks, ExternalUnixSockets, Terminal bool
	// Lazy leaves memory to a pager (package pager), whose socket is in Work.
	Lazy bool
	// CRIU is the version of the CRIU that will be found, as 40201 for 4.2.1; 0 if nobody knows.
	CRIU int
	// Inherit are files that the CRIU of a restore finds under the numbers that they
	// have here (see inherit.Raise), as its configuration says.
	Inherit []*os.File
}

func (i *Images) opts() *libcontainer.CriuOpts {
	return &libcontainer.CriuOpts{
		ImagesDirectory:         i.Dir,
		WorkDirectory:           i.Work,
		TcpEstablished:          i.TCPEstablished,
		ExternalUnixConnections: i.ExternalUnixSockets,
		ShellJob:                i.Terminal,
		FileLocks:               i.FileLocks,
		ManageCgroupsMode:       manageCgroups,
		StatusFd:                -1,
	}
}

func (i *Images) restoreOpts() *libcontainer.CriuOpts {
	opts := i.opts()
	opts.LazyPages = i.Lazy
	if i.Plain {
		opts.EmptyNs = unix.CLONE_NEWNET
	}
	return opts
}

// Restore is a restore under way. CRIU is held at the point where the
// container's first process exists, with its pid and namespaces, but not yet
// its memory; Finish lets it go on.
type Restore struct {
	runtime Runtime
	spec    Spec
	c       *libcontainer.Container
	cm      cgroups.Manager
	process *libcontainer.Process
	pid     int
	// criu are the pids of CRIU's processes.
	criu []int
	// release tells the held hook to go on (true) or to fail (false).
	release chan bool
	// done gets libcontainer's verdict.
	done chan error
	// ns is the container's cgroup namespace, if it has one of its own.
	ns *cgroupNamespace
	// free lets others start processes, and takes back what CRIU was lent.
	free func()
	// claimed is set by the first of Finish and Abort: only one may have its way.
	claimed atomic.Bool
	// aborted is closed when Abort has done its work.
	aborted chan struct{}
}

// ErrCRIU is returned when a call of CRIU has failed: its log in Images.Work
// may say why.
var ErrCRIU = errors.New("CRIU failed")

// ErrAborted is returned by Finish when Abort came first; and by the held hook to
// make CRIU give up.
var ErrAborted = errors.New("restore aborted")

// Restore makes the container and begins to restore its processes. It returns
// when they are held; the spec's prestart and createRuntime hooks have run
// then. After an error nothing is left: if those hooks had run, the poststop
// hooks have too.
func (r Runtime) Restore(ctx context.Context, s Spec, img Images, files Files) (*Restore, error) {
	cfg, err := s.config()
	if err != nil {
		return nil, err
	}
	s.nameCRIUConfig(cfg.Labels)
	rs := &Restore{runtime: r, spec: s, release: make(chan bool, 1), done: make(chan error, 1), aborted: make(chan struct{})}
	held := rs.hook(cfg, img.Plain)
	if rs.c, err = libcontainer.Create(r.Root, s.ID, cfg); err != nil {
		return nil, fmt.Errorf("make container %s: %w", s.ID, classify(err))
	}
	rs.cm, err = s.cgroupManager()
	if err == nil {
		err = knowCRIU(rs.c, img.CRIU)
	}
	if err == nil {
		rs.process, err = process(s.OCI.Process, files)
	}
	if err != nil {
		return nil, errors.Join(err, rs.c.Destroy())
	}
	rs.process.Init = true
	if wantsCgroupNamespace(cfg) {
		if rs.ns, err = newCgroupNamespace(rs.cm); err != nil {
			return nil, errors.Join(err, rs.scrub())
		}
	}
	if rs.free, err = inherit.Lend(ctx, img.Inherit); err != nil {
		rs.ns.Leave()
		return nil, errors.Join(err, rs.scrub())
	}
	go func() {
		err := onThread(func() error {
			return inBundle(s.Bundle, func() error { return rs.ns.restore(rs.c, rs.process, img.restoreOpts()) })
		})
		rs.free()
		rs.done <- err
	}()

	select {
	case rs.pid = <-held:
		rs.criu = rs.findCRIU()
		for _, pid := range append(rs.criu, rs.pid) {
			waitedFor.Store(pid, struct{}{})
		}
		return rs, nil
	case err := <-rs.done:
		return nil, errors.Join(fmt.Errorf("restore container %s: %w: %w", s.ID, ErrCRIU, err), rs.scrub())
	case <-ctx.Done():
		rs.release <- false
		return nil, errors.Join(fmt.Errorf("restore container %s: %w", s.ID, ctx.Err()), rs.kill())
	}
}

// hook adds to cfg the hooks that hold the restore, and returns where the pid
// of the held process comes. libcontainer calls hooks when CRIU reports
// setup-namespaces, and answers CRIU when they return.
func (rs *Restore) hook(cfg *configs.Config, plain bool) <-chan int {
	held := make(chan int, 1)
	prestart, createRuntime, poststop := cfg.Hooks[configs.Prestart], cfg.Hooks[configs.CreateRuntime], cfg.Hooks[configs.Poststop]
	delete(cfg.Hooks, configs.Poststop)
	first := configs.NewFunctionHook(func(st *specs.State) error {
		// CRIU runs where it belongs, and has what it was lent; hooks are not to have it.
		rs.ns.Leave()
		rs.free()
		rs.free = sync.OnceFunc(inherit.Guard())
		// CRIU has its configuration, which the hooks that follow are not to be told.
		rs.spec.forgetCRIUConfig(cfg.Labels)
		_, st.Annotations = utils.Annotations(cfg.Labels)
		if plain && cfg.Namespaces.IsPrivate(configs.NEWNET) {
			if err := netns.Do(netns.Of(st.Pid), loopbackUp); err != nil {
				return err
			}
		}
		// From here on other hooks may make something for poststop to undo.
		if poststop != nil {
			cfg.Hooks[configs.Poststop] = poststop
		}
		return nil
	})
	last := configs.NewFunctionHook(func(st *specs.State) error {
		// Function hooks cannot be saved with the container's state.
		cfg.Hooks[configs.Prestart], cfg.Hooks[configs.CreateRuntime] = prestart, createRuntime
		rs.free()
		held <- st.Pid
		if !<-rs.release {
			return ErrAborted
		}
		return nil
	})
	cfg.Hooks[configs.Prestart] = append(configs.HookList{first}, prestart...)
	cfg.Hooks[configs.CreateRuntime] = append(slices.Clip(createRuntime), last)
	return held
}

// findCRIU returns the pids of the container's processes that are children of
// ours, apart from the held one: CRIU's, which libcontainer does not tell.
func (rs *Restore) findCRIU() []int {
	inside, err := rs.cm.GetAllPids()
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(children(), func(pid int) bool {
		return pid == rs.pid || !slices.Contains(inside, pid)
	})
}

// forgetCRIU notes that CRIU has been waited for.
func (rs *Restore) forgetCRIU() {
	for _, pid := range rs.criu {
		waitedFor.Delete(pid)
	}
}

// PID is the held process's id, and the restored init's.
func (rs *Restore) PID() int { return rs.pid }

// Finish lets the restore go on and returns the restored container. After an
// error nothing of it is left.
func (rs *Restore) Finish(ctx context.Context) (*Container, *Process, error) {
	if !rs.claimed.CompareAndSwap(false, true) {
		// Not before nothing is left, as after any error.
		select {
		case <-rs.aborted:
			return nil, nil, ErrAborted
		case <-ctx.Done():
			return nil, nil, errors.Join(ErrAborted, ctx.Err())
		}
	}
	rs.release <- true
	died, stop := watch(append(rs.criu, rs.pid)...)
	defer stop()
	select {
	case err := <-rs.done:
		if err != nil {
			return nil, nil, errors.Join(fmt.Errorf("restore container %s: %w: %w", rs.spec.ID, ErrCRIU, err), rs.scrub())
		}
	case <-died:
		// CRIU waits for ever for a process that was killed in its hands, and we
		// for a CRIU that was killed, because the held process has its socket, too.
		return nil, nil, errors.Join(fmt.Errorf("restore container %s: CRIU or the process in its hands was killed: %w", rs.spec.ID, ErrCRIU), rs.kill())
	case <-ctx.Done():
		return nil, nil, errors.Join(fmt.Errorf("restore container %s: %w", rs.spec.ID, ctx.Err()), rs.kill())
	}
	rs.forgetCRIU()
	// libcontainer's Container is of no use after a restore (runc issue 5370):
	// load it anew, and keep the Process for waiting.
	c, err := libcontainer.Load(rs.runtime.Root, rs.spec.ID)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("load restored container %s: %w", rs.spec.ID, err), rs.scrub())
	}
	return rs.runtime.wrap(rs.spec, c), newProcess(rs.pid, rs.process), nil
}

// Abort gives a held restore up. Nothing of it is left afterwards. A restore
// that is being finished cannot be given up: ok is false.
func (rs *Restore) Abort() (ok bool, err error) {
	if !rs.claimed.CompareAndSwap(false, true) {
		return false, nil
	}
	defer close(rs.aborted)
	rs.release <- false
	return true, rs.kill()
}

// Kill ends what a restore that is being finished has restored, CRIU included:
// CRIU does not always notice that a process of its tree has died. Finish then
// fails, or had succeeded just before; the container's init is dead either way.
func (rs *Restore) Kill() error { return killCgroup(rs.cm) }

// abortTimeout bounds how long CRIU may take to end after its cgroup was killed.
const abortTimeout = 10 * time.Second

// kill ends CRIU, which runs in the container's cgroup, and what it restored.
func (rs *Restore) kill() error {
	// CRIU first gets the chance to end by itself: the hook has failed.
	timer := time.NewTimer(abortTimeout)
	defer timer.Stop()
	var errs []error
	for grace := time.After(abortTimeout / 20); ; {
		select {
		case <-rs.done: //nolint:errcheck // the failure is the one that was asked for
			return errors.Join(append(errs, rs.scrub())...)
		case <-grace:
			errs = append(errs, killCgroup(rs.cm))
		case <-timer.C:
			return errors.Join(append(errs, fmt.Errorf("CRIU did not end within %s: %w", abortTimeout, context.DeadlineExceeded))...)
		}
	}
}

// scrub removes what a failed restore left: processes, which are children of
// ours because CRIU makes them its siblings, cgroup and state.
// Precondition: libcontainer's Restore has returned.
func (rs *Restore) scrub() error {
	errs := []error{killCgroup(rs.cm)}
	rs.forgetCRIU()
	killOrphans()
	reap(rs.pid)
	errs = append(errs, retry(destroyAttempts, rs.c.Destroy))
	return errors.Join(errs...)
}

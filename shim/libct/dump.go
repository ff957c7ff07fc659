package libct

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"
)

// Dump says how to write a container's processes to images.
type Dump struct {
	Images
	// SkipInFlight leaves out connections that the program has not accepted yet,
	// which else make a dump fail.
	SkipInFlight bool
	// Detached leaves the network namespace out of the images, so that they can
	// be restored into one that was made before (see Namespaces). Without it
	// they are what runc would write: with a network namespace that is empty.
	Detached bool
	// Exit ends the processes when they are written.
	Exit bool
	// ParentPath is runc's option of that name.
	ParentPath string
}

// Dump has CRIU write the container's processes to images. A frozen container
// stays frozen.
//
// CRIU is ended when ctx is, and when the container's init has died: it may
// wait for ever for a process that was killed in its hands.
func (c *Container) Dump(ctx context.Context, d Dump) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	// A second view of the same container: its mutex is not the one that a
	// signal or a list of processes would wait for during the dump, and its
	// config can be changed without a trace.
	view, err := libcontainer.Load(c.root, c.spec.ID)
	if err != nil {
		return fmt.Errorf("load container %s: %w", c.spec.ID, err)
	}
	if err := knowCRIU(view, d.CRIU); err != nil {
		return err
	}
	st, err := view.State()
	if err != nil {
		return err
	}
	// Its slices are view's own.
	cfg := view.Config()
	c.spec.nameCRIUConfig(cfg.Labels)
	if d.Detached {
		// To give the namespace a path makes libcontainer tell CRIU that it is
		// external.
		join(&cfg, configs.NEWNET, "/proc/"+strconv.Itoa(st.InitProcessPid)+"/ns/net")
	}
	opts := d.opts()
	opts.LeaveRunning = !d.Exit
	opts.ParentImage = d.ParentPath
	opts.TcpSkipInFlight = d.SkipInFlight
	if !d.Detached {
		opts.EmptyNs = unix.CLONE_NEWNET
	}
	if err := dumps.Acquire(ctx, 1); err != nil {
		return fmt.Errorf("dump container %s: wait for another dump: %w", c.spec.ID, err)
	}
	defer dumps.Release(1)
	if err := c.stopAnew(); err != nil {
		return fmt.Errorf("dump container %s: %w", c.spec.ID, err)
	}
	done := make(chan error, 1)
	go func() { done <- view.Checkpoint(opts) }()
	died, stop := watch(st.InitProcessPid)
	defer stop()
	gone := ctx.Done()
	tick := time.NewTicker(dumpTick)
	defer tick.Stop()
	var dead []int
	for {
		select {
		case <-tick.C:
			// A CRIU that was killed at its very start may leave children that keep
			// its socket open, and libcontainer listening to it for ever.
			before := dead
			dead = forgottenCRIU()
			for _, pid := range dead {
				if slices.Contains(before, pid) {
					wait(pid)
					killOrphans()
					return fmt.Errorf("dump container %s: %w: it was killed", c.spec.ID, ErrCRIU)
				}
			}
			continue
		case err := <-done:
			if err != nil {
				killOrphans()
				return fmt.Errorf("dump container %s: %w: %w", c.spec.ID, ErrCRIU, errors.Join(err, ctx.Err()))
			}
			return nil
		case <-died:
			died = nil
		case <-gone:
			gone = nil
		}
		killDump(st.InitProcessPid)
	}
}

// dumps admits one dump at a time in a pod's shim: nobody tells whose a CRIU is
// that has died unnoticed.
var dumps = semaphore.NewWeighted(1)

// dumpTick is how often a dump looks for a CRIU that has died.
const dumpTick = 500 * time.Millisecond

// killDump ends the CRIU that dumps the tree of pid: the child of ours whose
// title says so. In its first milliseconds that can end the program, too (package
// criu), so it is for a dump that is lost anyway.
func killDump(pid int) {
	for _, child := range children() {
		title, err := os.ReadFile("/proc/" + strconv.Itoa(child) + "/cmdline")
		if err != nil {
			continue
		}
		if isDumpOf(string(title), pid) {
			_ = unix.Kill(child, unix.SIGKILL)
		}
	}
}

// isDumpOf says whether a process with this title is a CRIU that dumps the tree of pid.
func isDumpOf(title string, pid int) bool {
	args := strings.FieldsFunc(title, func(r rune) bool { return r == 0 || r == ' ' })
	return slices.Contains(args, "dump") && slices.Contains(args, strconv.Itoa(pid))
}

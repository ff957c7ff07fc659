package libct

import (
	"context"
	"fmt"
	"strconv"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
)

// Dump says how to write a container's processes to images.
type Dump struct {
	Images
	// SkipInFlight leaves out connections that the program has not accepted yet,
	// which else make a dump fail.
	SkipInFlight bool
	// Detached leaves the network namespace out of the images, so that they can
	// be restored into one that was made before (see Namespaces). Without it
	// they are what runc would write.
	Detached bool
	// Exit ends the processes when they are written.
	Exit bool
	// ParentPath is runc's option of that name.
	ParentPath string
}

// Dump has CRIU write the container's processes to images. A frozen container
// stays frozen.
//
// libcontainer cannot interrupt a dump: an ended ctx is noticed before it only.
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
	if d.Detached {
		st, err := view.State()
		if err != nil {
			return err
		}
		cfg := view.Config()
		// The slice is view's own: to give the namespace a path makes
		// libcontainer tell CRIU that it is external.
		join(&cfg, configs.NEWNET, "/proc/"+strconv.Itoa(st.InitProcessPid)+"/ns/net")
	}
	opts := d.opts()
	opts.LeaveRunning = !d.Exit
	opts.ParentImage = d.ParentPath
	opts.TcpSkipInFlight = d.SkipInFlight
	if err := view.Checkpoint(opts); err != nil {
		return fmt.Errorf("dump container %s: %w: %w", c.spec.ID, ErrCRIU, err)
	}
	return nil
}

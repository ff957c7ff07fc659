package start

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/containerd/log"

	"github.com/containerd-snap/snap/checkpoint/criu"
	"github.com/containerd-snap/snap/checkpoint/decide"
	"github.com/containerd-snap/snap/shim/libct"
)

// criuConfig is that for a registered checkpoint, or one that is to
// be, the same for both. Without connections they are closed in the clones and not
// touched in the program; with them it is we who lock the network.
func criuConfig(connections bool) criu.Config {
	c := criu.DefaultConfig()
	if connections {
		c.TCP = criu.TCPEstablished
	}
	return c
}

// legacyConfig is that for a plain checkpoint or restore, as runc would do it.
func legacyConfig(tcpEstablished bool) criu.Config {
	c := criu.Config{GhostLimit: criu.DefaultGhostLimit}
	if tcpEstablished {
		c.TCP = criu.TCPEstablished
	}
	return c
}

// diagnose adds to a failed restore what CRIU's log says of it, in words. A file of a volume
// can have changed since the decision: then that is the cause.
func (i *Init) diagnose(err error) error {
	if i.plan.entry != nil && errors.Is(err, libct.ErrCRIU) {
		if why := decide.Missing(i.oci, i.plan.entry.Checkpoint.Held); why != "" {
			return fmt.Errorf("%s (%w)", why, err)
		}
	}
	return explain(err, filepath.Join(i.workDir(), "restore.log"))
}

// explain puts the cause that CRIU's log names before an error of CRIU's.
func explain(err error, logFile string) error {
	if !errors.Is(err, libct.ErrCRIU) {
		return err
	}
	d := criu.DiagnoseFile(logFile)
	if d.Cause == "" {
		return err
	}
	return fmt.Errorf("%s (%w)", d, err)
}

// reapply gives the restored processes what the images hold of the captured
// container and the kernel lets us change from outside.
func (i *Init) reapply(ctx context.Context, c *libct.Container) {
	adj := i.oci.Process.OOMScoreAdj
	if adj == nil {
		return
	}
	pids, err := c.PIDs()
	if err != nil {
		log.G(ctx).WithError(err).Warn("list restored processes")
		return
	}
	for _, pid := range pids {
		err := os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte(strconv.Itoa(*adj)), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			log.G(ctx).WithError(err).WithField("id", i.req.ID).Warn("set oom_score_adj of a restored process")
		}
	}
}

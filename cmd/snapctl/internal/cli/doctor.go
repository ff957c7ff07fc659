package cli

import (
	"fmt"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/containerd-snap/snap/cmd/snapctl/internal/doctor"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/human"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/progress"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/report"
)

func (a *app) doctorCommand() *cobra.Command {
	var asJSON, verify bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check whether this node can capture and restore",
		Long: `Check CRIU, the kernel, the store and the registered checkpoints, and say what to do
about what is wrong. It changes nothing. The exit code is 1 if anything prevents
capture or restore.

Run it with the PATH and environment of containerd, which its shims inherit.

With --json: {"ok": BOOL, "checks": [{"name", "level": "ok"|"warning"|"problem",
"detail", "remedy"}]}`,
		Example: `  snapctl doctor
  snapctl doctor --verify     # reads all data of all checkpoints`,
		Args: exactly(0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			root, err := a.storeRoot()
			if err != nil {
				return err
			}
			var reading reading
			stop := progress.Show(a.env.Terminal, reading.line)
			result, err := doctor.Run(cmd.Context(), doctor.Probe(cmd.Context()), doctor.Options{
				Root:     root,
				Verify:   verify,
				Progress: reading.set,
			})
			stop()
			if err != nil {
				return err
			}
			if asJSON {
				err = report.JSON(cmd.OutOrStdout(), result)
			} else {
				err = result.Write(cmd.OutOrStdout())
			}
			if err == nil && !result.OK {
				err = fmt.Errorf("found %s", human.Count(result.Count(doctor.Problem), "problem"))
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&verify, "verify", false, "read the page data of all checkpoints, too")
	jsonFlag(cmd, &asJSON, "the findings")
	return cmd
}

// reading is how far the reading of a checkpoint is.
type reading struct {
	mu          sync.Mutex
	ref         string
	done, total int64
}

func (r *reading) set(ref string, done, total int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ref, r.done, r.total = ref, done, total
}

func (r *reading) line(elapsed time.Duration) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ref == "" {
		return fmt.Sprintf("checking: %s", elapsed.Truncate(time.Second))
	}
	return fmt.Sprintf("verifying %s: %s, %s of %s", human.Short(r.ref, 32), elapsed.Truncate(time.Second), human.Bytes(r.done), human.Bytes(r.total))
}

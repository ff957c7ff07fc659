package cli

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/containerd-snap/snap/cmd/snapctl/internal/doctor"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/human"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/report"
	"github.com/containerd-snap/snap/config"
)

func (a *app) doctorCommand() *cobra.Command {
	var asJSON, verify bool
	var namespace, address string
	cmd := &cobra.Command{
		Use:   "doctor [CONTAINER]",
		Short: "Check whether this node, or a container, can be captured and restored",
		Long: `Check CRIU, the kernel, containerd with its runtime handlers, the configuration, the
store and the registered checkpoints, and say what to do about what is wrong. It
changes nothing. Each finding is fine (✓), a warning (!), which costs time or concerns
some containers only, or a problem (✗), which prevents capture or restore. The exit
code is 1 if there is a problem.

Run it with the PATH of containerd, from which its shims start CRIU.

Of a running CONTAINER it says whether a capture would succeed and, if not, which
process and which resource stands in the way. It looks at /proc only: the program
does not notice. The exit code is 1 if something stands in the way.

--json is described in docs/json.md.`,
		Example: `  snapctl doctor
  snapctl doctor --verify     # reads all data of all checkpoints
  snapctl doctor web          # would it checkpoint?`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("give at most one CONTAINER, not %d arguments", len(args))
			}
			return nil
		},
		ValidArgsFunction: a.completeStarted,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				if verify {
					return &usageError{errors.New("--verify is about the store: give no CONTAINER")}
				}
				return a.doctorContainer(cmd, namespace, args[0], asJSON)
			}
			root, bad := a.storeRoot()
			if usage, ok := errors.AsType[*usageError](bad); ok {
				return usage
			}
			var reading reading
			stop := a.env.Progress.Show(reading.line)
			node := doctor.Probe(cmd.Context(), address)
			node.Version = a.env.Version
			if a.root == "" {
				node.ConfigFile, node.ConfigErr = config.File(), bad
			}
			result, err := doctor.Run(cmd.Context(), node, doctor.Options{
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
	namespaceFlag(cmd, &namespace)
	addressFlag(cmd, &address)
	jsonFlag(cmd, &asJSON, "the findings")
	return cmd
}

// doctorContainer says whether a running container can be captured.
func (a *app) doctorContainer(cmd *cobra.Command, namespace, id string, asJSON bool) error {
	st, err := a.openStore()
	if err != nil {
		return err
	}
	result, err := doctor.Container(st, a.defaults(), namespace, id)
	if err != nil {
		return err
	}
	if asJSON {
		err = report.JSON(cmd.OutOrStdout(), result)
	} else {
		err = result.Write(cmd.OutOrStdout())
	}
	if err == nil && !result.Capturable {
		err = fmt.Errorf("%s cannot be captured: found %s", human.Text(id), human.Count(result.Problems(), "problem"))
	}
	return err
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

package cli

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/create"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/report"
)

// defaultTimeout is far more than a capture takes that goes on.
const defaultTimeout = 5 * time.Minute

func (a *app) createCommand() *cobra.Command {
	var req create.Request
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "create CONTAINER",
		Short: "Capture a running container and register the checkpoint",
		Long: `Capture a running container and register the checkpoint, which later containers
with the same fingerprint start from. The program stands still while its memory
is written, and goes on then, unless --stop is given.

Capture it when it is booted and warm, and before it holds what belongs to one
user: its memory, secrets included, becomes that of every clone.

With --json the registered checkpoint is printed as in 'snapctl inspect --json'.`,
		Example: `  snapctl create web --name web-ready
  snapctl create web --name web-ready --replace    # the name moves on to the new one
  snapctl create -n k8s.io 3f4e... --stop`,
		Args:              exactly(1, "one CONTAINER"),
		ValidArgsFunction: a.completeStarted,
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Container = args[0]
			if req.Timeout <= 0 {
				return &usageError{fmt.Errorf("--timeout %s: give a duration above zero, as 5m", req.Timeout)}
			}
			if req.Replace && req.Name == "" {
				return &usageError{errors.New("--replace: give --name, too")}
			}
			st, err := a.openStore()
			if err != nil {
				return err
			}
			e, err := create.Run(cmd.Context(), st, req, a.env.Progress)
			switch {
			case errors.Is(err, checkpoint.ErrInvalid):
				return &usageError{err}
			case err != nil:
				return err
			case asJSON:
				return report.JSON(cmd.OutOrStdout(), e)
			}
			return report.Captured(cmd.OutOrStdout(), e, req.Stop)
		},
	}
	f := cmd.Flags()
	f.StringVar(&req.Name, "name", "", "call the checkpoint `NAME`: a-z, 0-9, '.', '_' and '-'")
	f.BoolVar(&req.Replace, "replace", false, "take the name from the checkpoint that has it, which stays registered")
	f.BoolVar(&req.Stop, "stop", false, "end the container when the checkpoint is registered")
	f.DurationVar(&req.Timeout, "timeout", defaultTimeout, "give up after this `TIME`")
	namespaceFlag(cmd, &req.Namespace)
	jsonFlag(cmd, &asJSON, "the checkpoint")
	return cmd
}

package cli

import (
	"github.com/spf13/cobra"

	"github.com/containerd-snap/snap/cmd/snapctl/internal/metrics"
	"github.com/containerd-snap/snap/config"
)

func (a *app) metricsCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "metrics",
		Short: "Print the node's metrics in Prometheus' text format",
		Long: `Print what was counted on this node (starts by decision, reason and outcome, captures,
prunes, with their times) and what the store holds, in Prometheus' text format.
docs/metrics.md explains each.

With --output the file is replaced in one step, for node_exporter's textfile
collector; run it from a timer.`,
		Example: `  snapctl metrics
  snapctl metrics --output /var/lib/node_exporter/snap.prom`,
		Args: exactly(0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			st, err := a.openStore()
			if err != nil {
				return err
			}
			cfg, err := config.Load()
			if err != nil {
				return err
			}
			n, err := metrics.Read(st, a.env.Version, cfg.Limits.Retain())
			if err != nil {
				return err
			}
			if output != "" {
				return metrics.WriteFile(output, n)
			}
			return metrics.Write(cmd.OutOrStdout(), n)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "replace `FILE` instead of printing")
	return cmd
}

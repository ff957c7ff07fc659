package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/containerd-snap/snap/cmd/snapctl/internal/human"
)

func (a *app) listCommand() *cobra.Command {
	var asJSON, quiet bool
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the registered checkpoints",
		Long: `List the registered checkpoints, newest first.

STATUS is one of
  ready        it is restored from where it fits
  failing      as ready, but the last restore failed
  quarantined  it failed too often and is not chosen; see 'snapctl clear'
  unfit        this node lacks what it needs; see 'snapctl inspect'
  damaged      its manifest cannot be read; see 'snapctl doctor'

With --json an array is printed, newest first, without damaged checkpoints:
  [{"digest": "sha256:...", "name": "...",
    "checkpoint": {"schemaVersion", "createdAt", "source": {"namespace", "container",
      "image", "imageDigest", "command", "processes"}, "fingerprint": {FIELD: VALUE},
      "host": {"arch", "kernel", "cpuFeatures": [], "criu", "cgroup"},
      "files": [{"path", "size", "sha256", "pages"}],
      "diff": {"format", "files", "bytes", "sha256"},
      "timing": {"pauseMs", "dumpMs", "diffMs"}},
    "state": {"failures", "lastFailure", "lastUsed", "pinned", "restores"}}]
Sizes are bytes, times RFC 3339; a name, text or time that is empty is left out.
host.criu is major*10000 + minor*100 + patch. Fields may be added; none of these
changes its meaning.`,
		Example: `  snapctl ls
  snapctl ls --json | jq '.[] | select(.state.failures >= 3) | .digest'
  snapctl rm $(snapctl ls -q)`,
		Args: exactly(0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if quiet && asJSON {
				return &usageError{errors.New("--json and --quiet exclude each other")}
			}
			r, err := a.report(cmd.Context(), cmd)
			if err != nil {
				return err
			}
			if quiet {
				return r.ListDigests()
			}
			if !asJSON {
				return r.List()
			}
			damaged, err := r.ListJSON()
			if damaged > 0 {
				fmt.Fprintf(cmd.ErrOrStderr(), "snapctl: left out %s that cannot be read; see `snapctl doctor`\n", human.Count(damaged, "checkpoint"))
			}
			return err
		},
	}
	jsonFlag(cmd, &asJSON, "the checkpoints")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print digests only")
	return cmd
}

func (a *app) inspectCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "inspect REF",
		Short: "Show all that is known of a checkpoint",
		Long: `Show all that is known of a registered checkpoint: where it comes from, its state,
what a container must have in common with it, what a node must offer, and its files.

With --json it is printed as one element of 'snapctl ls --json'.`,
		Example: `  snapctl inspect web-ready
  snapctl inspect 0123456 --json | jq .checkpoint.fingerprint`,
		Args:              exactly(1, "one REF"),
		ValidArgsFunction: a.completeOneRef,
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := a.report(cmd.Context(), cmd)
			if err != nil {
				return err
			}
			if asJSON {
				return r.InspectJSON(args[0])
			}
			return r.Inspect(args[0])
		},
	}
	jsonFlag(cmd, &asJSON, "the checkpoint")
	return cmd
}

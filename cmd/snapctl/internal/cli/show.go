package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/containerd-snap/snap/cmd/snapctl/internal/human"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/report"
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
    "state": {"failures", "lastFailure", "lastUsed", "restores"}}]
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
		ValidArgsFunction: a.completeRefs,
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

func (a *app) explainCommand() *cobra.Command {
	var asJSON bool
	var namespace string
	cmd := &cobra.Command{
		Use:   "explain CONTAINER",
		Short: "Say how a container started last, and why so",
		Long: `Say how a container started last: what was decided and why, what became of it, and
how long each part took. If it booted, the registered checkpoints that come
nearest to fitting it are named, with what differs.

What is recorded outlives the container; the last 1000 starts are kept.

With --json: {"start": {"namespace", "container", "bundle", "shimPid", "address", "pid",
"at", "decision": {"action": "boot"|"restore", "reason", "digest", "name", "demanded",
"verdicts": [{"digest", "name", "fits", "reason"}]}, "outcome": "boot"|"restore",
"fallback", "error", "fingerprint": {FIELD: VALUE}, "phases": [{"name", "ms"}]},
"nearMisses": [{"digest", "name", "sameImage", "differs": [TEXT]}]}`,
		Example: `  snapctl explain web2
  snapctl explain -n k8s.io 3f4e... --json | jq .start.decision.reason`,
		Args: exactly(1, "one CONTAINER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := a.report(cmd.Context(), cmd)
			if err != nil {
				return err
			}
			x, err := r.Explain(namespace, args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return report.JSON(cmd.OutOrStdout(), x)
			}
			return x.Write(r)
		},
	}
	namespaceFlag(cmd, &namespace)
	jsonFlag(cmd, &asJSON, "the explanation")
	return cmd
}

// completeRefs offers the shell the names of checkpoints, or digests of those that
// have none.
func (a *app) completeRefs(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	st, err := a.openStore()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	entries, err := st.List()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return report.Refs(entries), cobra.ShellCompDirectiveNoFileComp
}

package cli

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/containerd-snap/snap/cmd/snapctl/internal/daemon"
	"github.com/containerd-snap/snap/config"
)

// envNamespace is the environment variable from which containerd's other clients
// take their namespace.
const envNamespace = "CONTAINERD_NAMESPACE"

// ExitCodes says what the program's exit codes mean.
const ExitCodes = "0 done; 1 failed, or something was found wrong; 2 wrong usage."

// Command returns the whole command line, for what is generated from it.
func Command() *cobra.Command { return (&app{}).command() }

// command returns the whole command line.
func (a *app) command() *cobra.Command {
	root := &cobra.Command{
		Use:   "snapctl",
		Short: "Capture containers, and manage the checkpoints that others start from",
		Long: `snapctl is the operator's command of the containerd runtime io.containerd.snap.v2,
which starts a container from a registered checkpoint where one fits it, and
boots it otherwise.

A REF names a registered checkpoint: its name, its digest, or at least the first
7 digits of its digest. A CONTAINER is the id of a container that the
runtime started, the first 4 digits of it or more, or the name that nerdctl gave it; its
namespace is given with -n or CONTAINERD_NAMESPACE.

The store's directory is read from ` + config.DefaultFile + `, or from the file that
` + config.EnvFile + ` names, as the runtime does.

Exit codes: ` + ExitCodes,
		Example: `  ctr run -d --runtime io.containerd.snap.v2 IMAGE web
  snapctl create web --name web-ready     # capture it, booted and warm
  ctr run -d --runtime io.containerd.snap.v2 IMAGE web2
  snapctl explain web2                    # restored, or why not`,
		SilenceErrors:    true,
		SilenceUsage:     true,
		PersistentPreRun: func(*cobra.Command, []string) { a.begun = true },
	}
	root.PersistentFlags().StringVar(&a.root, "root", "", "use the store in `DIR` instead of the configuration's")
	root.AddCommand(
		a.createCommand(),
		a.listCommand(),
		a.inspectCommand(),
		a.removeCommand(),
		a.clearCommand(),
		a.pinCommand(),
		a.unpinCommand(),
		a.pruneCommand(),
		a.exportCommand(),
		a.importCommand(),
		a.metricsCommand(),
		a.explainCommand(),
		a.doctorCommand(),
		a.versionCommand(),
	)
	return root
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "snapctl %s\n", a.env.Version)
			return err
		},
	}
}

// namespaceFlag adds -n to a command that takes a container.
func namespaceFlag(cmd *cobra.Command, into *string) {
	ns := os.Getenv(envNamespace)
	if ns == "" {
		ns = "default"
	}
	cmd.Flags().StringVarP(into, "namespace", "n", ns, "containerd's `NAMESPACE` of the container")
}

// addressFlag adds -a to a command that asks containerd.
func addressFlag(cmd *cobra.Command, into *string) {
	cmd.Flags().StringVarP(into, "address", "a", daemon.DefaultAddress(), "containerd's `SOCKET`")
}

func jsonFlag(cmd *cobra.Command, into *bool, what string) {
	cmd.Flags().BoolVar(into, "json", false, "print "+what+" as JSON")
}

// exactly takes n arguments, which names lists.
func exactly(n int, names string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) == n:
			return nil
		case n == 0:
			return fmt.Errorf("it takes no argument, and was given %q", args[0])
		}
		return fmt.Errorf("give %s, not %d arguments", names, len(args))
	}
}

// atLeastOneRef takes one REF or more.
func atLeastOneRef(_ *cobra.Command, args []string) error {
	if len(args) == 0 {
		return errors.New("give at least one REF; `snapctl ls` lists them")
	}
	return nil
}

package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/match"
	"github.com/containerd-snap/snap/checkpoint/store"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/report"
)

func (a *app) removeCommand() *cobra.Command {
	return a.eachCommand(removeOne, &cobra.Command{
		Use:     "rm REF...",
		Aliases: []string{"remove"},
		Short:   "Remove registered checkpoints",
		Long: `Remove registered checkpoints and delete their files. One from which a task is just
being restored is left alone; damaged ones are removed as others are. An error with
one REF does not keep the others from being removed.`,
		Example: `  snapctl rm web-ready
  snapctl rm 0123456 89abcde`,
	})
}

func (a *app) clearCommand() *cobra.Command {
	return a.eachCommand(clearOne, &cobra.Command{
		Use:   "clear REF...",
		Short: "Lift the quarantine of checkpoints",
		Long: fmt.Sprintf(`Forget the failed restores of registered checkpoints. After %d in a row a checkpoint is
quarantined: no container starts from it, unless it names it, until this is done.`, checkpoint.QuarantineAfter),
		Example: `  snapctl clear web-ready`,
	})
}

func (a *app) pinCommand() *cobra.Command {
	return a.eachCommand(pinOne, &cobra.Command{
		Use:   "pin REF...",
		Short: "Keep checkpoints from being removed",
		Long: `Keep registered checkpoints from being removed, whatever the budgets, until they are
unpinned. A pin survives kills and power cuts. Only root can remove the store's files
by other means.`,
		Example: `  snapctl pin web-ready`,
	})
}

func (a *app) unpinCommand() *cobra.Command {
	return a.eachCommand(unpinOne, &cobra.Command{
		Use:     "unpin REF...",
		Short:   "Let pinned checkpoints be removed again",
		Long:    `Let checkpoints be removed again that were pinned: by rm, and where a budget is exceeded.`,
		Example: `  snapctl unpin web-ready && snapctl rm web-ready`,
	})
}

// eachCommand makes of cmd, which has its words, a command that does the same with
// each of its arguments.
func (a *app) eachCommand(do func(*store.Store, string) (changed, error), cmd *cobra.Command) *cobra.Command {
	var asJSON bool
	cmd.Args = atLeastOneRef
	cmd.ValidArgsFunction = a.completeRefs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.forEach(cmd, args, asJSON, do)
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print an array of {ref, digest, done, error}")
	return cmd
}

// changed is what became of one checkpoint: an element of the array that --json prints.
type changed struct {
	// Ref is the argument as given.
	Ref string `json:"ref"`
	// Digest is what it stands for; empty if it stands for none.
	Digest string `json:"digest,omitempty"`
	// Done says that the checkpoint is as it was asked to be.
	Done bool `json:"done"`
	// Error is why not.
	Error string `json:"error,omitempty"`

	// said is the line for people.
	said string
}

// forEach does the same with each checkpoint, and goes on after errors.
func (a *app) forEach(cmd *cobra.Command, refs []string, asJSON bool, do func(*store.Store, string) (changed, error)) error {
	st, err := a.openStore()
	if err != nil {
		return err
	}
	all := []changed{}
	var errs []error
	for _, ref := range refs {
		if cmd.Context().Err() != nil {
			errs = append(errs, fmt.Errorf("interrupted before %q", ref))
			break
		}
		c, err := do(st, ref)
		c.Ref, c.Done = ref, err == nil
		if err != nil {
			c.Error = err.Error()
			errs = append(errs, err)
		} else if !asJSON {
			fmt.Fprintln(cmd.OutOrStdout(), c.said)
		}
		all = append(all, c)
	}
	if asJSON {
		errs = append(errs, report.JSON(cmd.OutOrStdout(), all))
	}
	return errors.Join(errs...)
}

// removeOne removes a checkpoint, also a damaged one.
func removeOne(st *store.Store, ref string) (changed, error) {
	e, err := st.Resolve(ref)
	c := changed{Digest: e.Digest, said: "removed " + match.Ref(e)}
	if err != nil && e.Digest == "" {
		return c, err
	}
	return c, st.Remove(e.Digest)
}

// clearOne forgets a checkpoint's failures.
func clearOne(st *store.Store, ref string) (changed, error) {
	e, err := st.Resolve(ref)
	c := changed{Digest: e.Digest}
	if err != nil {
		return c, err
	}
	if e.State.Failures == 0 {
		c.said = match.Ref(e) + " has no failures"
		return c, nil
	}
	c.said = fmt.Sprintf("cleared %s: it is chosen again where it fits", match.Ref(e))
	return c, st.Clear(e.Digest)
}

// pinOne keeps a checkpoint from being removed.
func pinOne(st *store.Store, ref string) (changed, error) {
	e, err := st.Resolve(ref)
	c := changed{Digest: e.Digest}
	if err != nil {
		return c, err
	}
	c.said = "pinned " + match.Ref(e)
	return c, st.Pin(e.Digest)
}

// unpinOne lets a checkpoint be removed again.
func unpinOne(st *store.Store, ref string) (changed, error) {
	e, err := st.Resolve(ref)
	c := changed{Digest: e.Digest}
	if err != nil {
		return c, err
	}
	c.said = "unpinned " + match.Ref(e)
	return c, st.Unpin(e.Digest)
}

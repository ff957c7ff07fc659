package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/match"
	"github.com/containerd-snap/snap/checkpoint/store"
)

func (a *app) removeCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "rm REF...",
		Aliases: []string{"remove"},
		Short:   "Remove registered checkpoints",
		Long: `Remove registered checkpoints and delete their files. One from which a task is just
being restored is left alone; damaged ones are removed as others are. An error with
one REF does not keep the others from being removed.`,
		Example: `  snapctl rm web-ready
  snapctl rm 0123456 89abcde`,
		Args:              atLeastOne("REF"),
		ValidArgsFunction: a.completeRefs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.forEach(cmd, args, removeOne)
		},
	}
}

func (a *app) clearCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "clear REF...",
		Short: "Lift the quarantine of checkpoints",
		Long: fmt.Sprintf(`Forget the failed restores of registered checkpoints. After %d in a row a checkpoint is
quarantined: no container starts from it, unless it names it, until this is done.`, checkpoint.QuarantineAfter),
		Example:           `  snapctl clear web-ready`,
		Args:              atLeastOne("REF"),
		ValidArgsFunction: a.completeRefs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.forEach(cmd, args, clearOne)
		},
	}
}

// forEach does the same with each checkpoint, and goes on after errors.
func (a *app) forEach(cmd *cobra.Command, refs []string, do func(*store.Store, string) (string, error)) error {
	st, err := a.openStore()
	if err != nil {
		return err
	}
	var errs []error
	for _, ref := range refs {
		if cmd.Context().Err() != nil {
			errs = append(errs, fmt.Errorf("interrupted before %q", ref))
			break
		}
		done, err := do(st, ref)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		fmt.Fprintln(cmd.OutOrStdout(), done)
	}
	return errors.Join(errs...)
}

// removeOne removes a checkpoint, also a damaged one.
func removeOne(st *store.Store, ref string) (string, error) {
	e, err := st.Resolve(ref)
	if err != nil && e.Digest == "" {
		return "", err
	}
	if err := st.Remove(e.Digest); err != nil {
		return "", err
	}
	return "removed " + match.Ref(e), nil
}

// clearOne forgets a checkpoint's failures.
func clearOne(st *store.Store, ref string) (string, error) {
	e, err := st.Resolve(ref)
	if err != nil {
		return "", err
	}
	if e.State.Failures == 0 {
		return match.Ref(e) + " has no failures", nil
	}
	if err := st.Clear(e.Digest); err != nil {
		return "", err
	}
	return fmt.Sprintf("cleared %s: it is chosen again where it fits", match.Ref(e)), nil
}

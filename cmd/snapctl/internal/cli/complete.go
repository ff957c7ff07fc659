package cli

import (
	"cmp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/containerd-snap/snap/cmd/snapctl/internal/report"
)

// completeRefs offers the shell the names of checkpoints, or digests of those that
// have none. Those that stand in the line already are left out.
func (a *app) completeRefs(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	st, err := a.openStore()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	entries, err := st.List()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return without(report.Refs(entries), args), cobra.ShellCompDirectiveNoFileComp
}

// completeOneRef is completeRefs for a command that takes one.
func (a *app) completeOneRef(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.completeRefs(cmd, args, begun)
}

// completeRefThenFile is completeRefs for the first argument, and leaves the second to the shell.
func (a *app) completeRefThenFile(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 1 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return a.completeOneRef(cmd, args, begun)
}

// completeStarted offers the containers of which a start is recorded, in the namespace
// that the line names.
func (a *app) completeStarted(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	st, err := a.openStore()
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	starts, err := st.Starts()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	namespace := cmd.Flag("namespace").Value.String()
	var names []string
	for _, s := range starts {
		if s.Namespace != namespace {
			continue
		}
		if name := cmp.Or(s.Name, s.Container); strings.HasPrefix(name, begun) && !slices.Contains(names, name) {
			names = append(names, name)
		} else if begun != "" && strings.HasPrefix(s.Container, begun) {
			names = append(names, s.Container)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// without returns the words that are not among those to leave out.
func without(words, leaveOut []string) []string {
	gone := map[string]bool{}
	for _, w := range leaveOut {
		gone[w] = true
	}
	kept := words[:0]
	for _, w := range words {
		if !gone[w] {
			kept = append(kept, w)
		}
	}
	return kept
}

// Command manpages writes the manual pages of snapctl, one for each of its commands, and
// the files with which shells complete its command line:
//
//	manpages VERSION DIR
//
// makes DIR/man1/snapctl.1, DIR/man1/snapctl-create.1 … and DIR/completions/snapctl.bash,
// _snapctl and snapctl.fish. What they say is what the commands' help says.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/containerd-snap/snap/cmd/snapctl/internal/cli"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: manpages VERSION DIR")
		os.Exit(2)
	}
	if err := write(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "manpages:", err)
		os.Exit(1)
	}
}

func write(version, dir string) error {
	root := cli.Command()
	root.InitDefaultHelpCmd()
	pages := filepath.Join(dir, "man1")
	completions := filepath.Join(dir, "completions")
	for _, d := range []string{pages, completions} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	for _, cmd := range append(root.Commands(), root) {
		if !cmd.IsAvailableCommand() && cmd != root {
			continue
		}
		file := filepath.Join(pages, pageName(cmd)+".1")
		if err := os.WriteFile(file, []byte(page(cmd, version)), 0o644); err != nil {
			return err
		}
	}
	return errors.Join(
		root.GenBashCompletionFileV2(filepath.Join(completions, "snapctl.bash"), true),
		root.GenZshCompletionFile(filepath.Join(completions, "_snapctl")),
		root.GenFishCompletionFile(filepath.Join(completions, "snapctl.fish"), true),
	)
}

func pageName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// page writes a command's manual in the man macros.
func page(cmd *cobra.Command, version string) string {
	var b strings.Builder
	name := pageName(cmd)
	fmt.Fprintf(&b, ".TH %q 1 \"\" %q \"Snap\"\n", strings.ToUpper(name), "snapctl "+version)
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", text(name), text(cmd.Short))
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.B %s\n", text(cmd.UseLine()))
	if cmd.Long != "" {
		// As it stands: its lines and tables are made for a terminal.
		fmt.Fprintf(&b, ".SH DESCRIPTION\n%s", verbatim(cmd.Long))
	}
	flags(&b, "OPTIONS", cmd.NonInheritedFlags())
	flags(&b, "GLOBAL OPTIONS", cmd.InheritedFlags())
	if cmd.Example != "" {
		fmt.Fprintf(&b, ".SH EXAMPLES\n%s", verbatim(cmd.Example))
	}
	if cmd.HasParent() {
		fmt.Fprintf(&b, ".SH EXIT STATUS\n%s\n", text(cli.ExitCodes))
	}
	b.WriteString(".SH SEE ALSO\n")
	var others []string
	if cmd.HasParent() {
		others = append(others, ".BR "+text(pageName(cmd.Parent()))+" (1)")
	}
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			others = append(others, ".BR "+text(pageName(c))+" (1)")
		}
	}
	b.WriteString(strings.Join(others, ",\n") + "\n")
	return b.String()
}

func flags(b *strings.Builder, title string, set *pflag.FlagSet) {
	if !set.HasAvailableFlags() {
		return
	}
	fmt.Fprintf(b, ".SH %s\n", title)
	set.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		argument, usage := pflag.UnquoteUsage(f)
		b.WriteString(".TP\n")
		if f.Shorthand != "" {
			fmt.Fprintf(b, "\\fB\\-%s\\fR, ", f.Shorthand)
		}
		fmt.Fprintf(b, "\\fB\\-\\-%s\\fR", text(f.Name))
		if argument != "" {
			fmt.Fprintf(b, " \\fI%s\\fR", text(argument))
		}
		fmt.Fprintf(b, "\n%s\n", text(usage))
	})
}

// text escapes what roff would take for its own.
func text(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	var b strings.Builder
	for _, r := range s {
		if r < utf8.RuneSelf {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, `\[u%04X]`, r)
		}
	}
	return b.String()
}

// verbatim keeps lines as they are.
func verbatim(s string) string {
	var b strings.Builder
	b.WriteString(".nf\n")
	for line := range strings.SplitSeq(strings.TrimRight(s, "\n"), "\n") {
		b.WriteString(text(line) + "\n")
	}
	b.WriteString(".fi\n")
	return b.String()
}

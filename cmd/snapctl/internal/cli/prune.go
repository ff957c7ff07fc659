package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/containerd-snap/snap/cmd/snapctl/internal/human"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/report"
	"github.com/containerd-snap/snap/config"
)

func (a *app) pruneCommand() *cobra.Command {
	var dryRun, asJSON bool
	var size sizeFlag
	var age, idle durationFlag
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove checkpoints that exceed the store's budgets",
		Long: `Remove registered checkpoints until the budgets hold, as is done after each capture:
those of [limits] in ` + config.DefaultFile + `, or those given here in their place.
Pinned checkpoints stay, and those in use.

  1. what is older than max_age goes
  2. what was not used for max_idle goes, unless it has a name
  3. a template without a name goes if its image's tag has moved on: if a newer one
     differs from it in nothing but the image's content
  4. of the resume points of a container, or of a resume-key, the newest stay
  5. of the templates without a name of an image and command, the newest stay
  6. while the rest is larger than max_bytes: what is quarantined, then older resume
     points, then templates, then newest resume points; the longest unused first

Abandoned files of killed captures are removed as well. The exit code is 1 if
something stays that had to go because it is in use.

With --json: {"dryRun", "removed": [{"digest", "name", "image", "bytes", "cause":
"age"|"idle"|"moved"|"resume_points"|"per_image"|"bytes", "reason"}], "inUse": [the
same and "inUse"], "freedBytes", "swept"}`,
		Example: `  snapctl prune --dry-run
  snapctl prune --max-bytes 20GiB`,
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
			limits := cfg.Limits
			size.set(&limits.MaxBytes)
			age.set(&limits.MaxAge)
			idle.set(&limits.MaxIdle)
			swept := 0
			if !dryRun {
				if swept, err = st.Sweep(); err != nil {
					return err
				}
			}
			pruned, err := st.Prune(cmd.Context(), limits.Retain(), a.env.Now(), dryRun)
			if !dryRun {
				err = errors.Join(err, st.CountPruned(pruned))
			}
			p := report.NewPruning(pruned, swept, dryRun)
			r := &report.Report{Out: cmd.OutOrStdout()}
			var written error
			if asJSON {
				written = report.JSON(r.Out, p)
			} else {
				written = r.Prune(p)
			}
			switch {
			case err != nil:
				return err
			case written == nil && len(p.InUse) > 0:
				return fmt.Errorf("%s had to stay, in use", human.Count(len(p.InUse), "checkpoint"))
			}
			return written
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be removed, and remove nothing")
	cmd.Flags().Var(&size, "max-bytes", "hold `SIZE` instead of limits.max_bytes")
	cmd.Flags().Var(&age, "max-age", "hold `DURATION` instead of limits.max_age")
	cmd.Flags().Var(&idle, "max-idle", "hold `DURATION` instead of limits.max_idle")
	jsonFlag(cmd, &asJSON, "what was removed")
	return cmd
}

// textFlag is a flag with the grammar that the same value has in the configuration.
type textFlag[T any, P interface {
	*T
	UnmarshalText(text []byte) error
}] struct {
	value T
	text  string
}

type (
	sizeFlag     = textFlag[config.Size, *config.Size]
	durationFlag = textFlag[config.Duration, *config.Duration]
)

// String is part of pflag.Value.
func (f *textFlag[T, P]) String() string { return f.text }

// Type is part of pflag.Value.
func (f *textFlag[T, P]) Type() string { return "text" }

// Set is part of pflag.Value.
func (f *textFlag[T, P]) Set(text string) error {
	f.text = text
	return P(&f.value).UnmarshalText([]byte(text))
}

// set overrides to, if the flag was given.
func (f *textFlag[T, P]) set(to *T) {
	if f.text != "" {
		*to = f.value
	}
}

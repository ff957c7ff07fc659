package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/archive"
	"github.com/containerd-snap/snap/checkpoint/store"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/human"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/progress"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/report"
)

// stdStream as a FILE is standard output or input.
const stdStream = "-"

func (a *app) exportCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "export REF FILE",
		Short: "Write a registered checkpoint to a file or a pipe",
		Long: `Write a registered checkpoint to a new file, or to standard output if FILE is '-',
as a tar archive that 'snapctl import' reads. It holds the program's memory, secrets
included: the file is made for root alone, and what carries it should be trusted.`,
		Example: `  snapctl export web-ready - | ssh root@node2 snapctl import - --name web-ready
  snapctl export web-ready - | zstd >web-ready.tar.zst`,
		Args:              exactly(2, "one REF and one FILE"),
		ValidArgsFunction: a.completeRefThenFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			st, err := a.openStore()
			if err != nil {
				return err
			}
			e, err := st.Resolve(args[0])
			if err != nil {
				return err
			}
			if args[1] == stdStream {
				out := cmd.OutOrStdout()
				if f, ok := out.(*os.File); ok && progress.IsTerminal(f) {
					return &usageError{errors.New("a checkpoint is not for a terminal: give a FILE, or pipe it into something")}
				}
				return a.export(cmd.Context(), st, e, out)
			}
			if err := a.exportTo(cmd.Context(), st, e, args[1]); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "exported %s to %s, %s\n", e.Digest, human.Text(args[1]), human.Bytes(e.Checkpoint.Bytes()))
			return err
		},
	}
}

// exportTo writes a checkpoint to a new file, or leaves none.
func (a *app) exportTo(ctx context.Context, st *store.Store, e checkpoint.Entry, path string) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("export to %s: it exists; remove it, or give another FILE", human.Text(path))
	}
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	if err = a.export(ctx, st, e, f); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

func (a *app) export(ctx context.Context, st *store.Store, e checkpoint.Entry, w io.Writer) error {
	var c carried
	stop := a.env.Progress.Show(c.line("exporting"))
	defer stop()
	return archive.Write(ctx, st, e, w, c.set)
}

func (a *app) importCommand() *cobra.Command {
	var o archive.Options
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Register a checkpoint that was exported elsewhere",
		Long: `Read what 'snapctl export' wrote, from a file or from standard input if FILE is '-',
and register it: whole and with the digest that it had, or not at all.

The digest tells that it is what was exported, not who made it. A checkpoint decides
what runs in the containers that are restored from it, and CRIU builds that as root:
import from those only whom you would let run a program as root, or give --digest
with what they told you by a way that you trust.`,
		Example: `  snapctl import web-ready.tar --name web-ready
  zstd -dc web-ready.tar.zst | snapctl import - --digest sha256:4e81...`,
		Args: exactly(1, "one FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOptions(o); err != nil {
				return &usageError{err}
			}
			st, err := a.openStore()
			if err != nil {
				return err
			}
			in := cmd.InOrStdin()
			if args[0] != stdStream {
				f, err := os.Open(args[0])
				if err != nil {
					return fmt.Errorf("import: %w", err)
				}
				defer f.Close()
				in = f
			}
			var c carried
			o.Progress = c.set
			stop := a.env.Progress.Show(c.line("importing"))
			e, err := archive.Read(cmd.Context(), st, until(cmd.Context(), in), o)
			stop()
			if err != nil {
				return err
			}
			if asJSON {
				return report.JSON(cmd.OutOrStdout(), e)
			}
			r, err := a.report(cmd.Context(), cmd)
			if err != nil {
				return err
			}
			return r.Imported(e)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Name, "name", "", "call the checkpoint `NAME`: a-z, 0-9, '.', '_' and '-'")
	f.BoolVar(&o.Replace, "replace", false, "take the name from the checkpoint that has it, which stays registered")
	f.StringVar(&o.Digest, "digest", "", "register it only if it is the checkpoint with this `DIGEST`")
	jsonFlag(cmd, &asJSON, "the checkpoint")
	return cmd
}

// checkOptions refuses what can be right with no stream.
func checkOptions(o archive.Options) error {
	if o.Name == "" && o.Replace {
		return errors.New("--replace: give --name, too")
	}
	if o.Name != "" {
		if err := store.CheckName(o.Name); err != nil {
			return fmt.Errorf("--name: %w", err)
		}
	}
	if o.Digest != "" {
		if err := store.CheckDigest(o.Digest); err != nil {
			return fmt.Errorf("--digest: %w", err)
		}
	}
	return nil
}

// until returns what reads from r until ctx ends: a pipe may stay silent for ever.
func until(ctx context.Context, r io.Reader) io.Reader {
	pr, pw := io.Pipe()
	go func() {
		_, err := io.Copy(pw, r)
		pw.CloseWithError(err)
	}()
	context.AfterFunc(ctx, func() { pr.CloseWithError(context.Cause(ctx)) })
	return pr
}

// carried is how much of a checkpoint has been written or read.
type carried struct{ done, total atomic.Int64 }

func (c *carried) set(done, total int64) {
	c.done.Store(done)
	c.total.Store(total)
}

// line returns what says it for a terminal.
func (c *carried) line(what string) func(time.Duration) string {
	return func(elapsed time.Duration) string {
		return fmt.Sprintf("%s: %s, %s of %s", what, elapsed.Truncate(time.Second), human.Bytes(c.done.Load()), human.Bytes(c.total.Load()))
	}
}

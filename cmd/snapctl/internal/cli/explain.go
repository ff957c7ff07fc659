package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/decide"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/daemon"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/dryrun"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/human"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/report"
)

// explain is one run of the command of that name.
type explain struct {
	app                *app
	cmd                *cobra.Command
	namespace, address string
	asJSON, dryRun     bool
	wanted             dryrun.Wanted
	// done ends the showing of progress; it may be called twice.
	done func()
}

func (a *app) explainCommand() *cobra.Command {
	x := &explain{app: a}
	cmd := &cobra.Command{
		Use:   "explain CONTAINER|IMAGE [-- ARG...]",
		Short: "Say how a container started last, or would start, and why",
		Long: `Say how a container started last: what was decided and why, what became of it, and
how long each part took. If it booted, the registered checkpoints that come
nearest to fitting it are named, each with the first setting in which it differs
and both values. What was captured of the container is listed, and why the last
capture failed if it did. What is recorded outlives the container; the last 1000
starts are kept.

Of an IMAGE it lists the checkpoints that were taken of its containers, with what a
start must set to be restored from them, and the last starts.

With --dry-run nothing is started: containerd is asked for the container, or for
the image, of which the spec is made that 'ctr run IMAGE ID ARG...' makes, and the
runtime's own code decides. Run it with the PATH of containerd, in which CRIU is
looked for. Values of environment variables are shown by their digest.

--json is described in docs/json.md.`,
		Example: `  snapctl explain web2
  snapctl explain docker.io/library/web:1
  snapctl explain --dry-run docker.io/library/web:1 -- python3 -m http.server
  snapctl explain --dry-run --env MODE=fast docker.io/library/web:1
  snapctl explain -n k8s.io 3f4e... --json | jq .start.decision.reason`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: a.completeStarted,
		RunE: func(cmd *cobra.Command, args []string) error {
			x.cmd = cmd
			return x.run(cmd.Context(), args)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&x.dryRun, "dry-run", false, "say how it would start if it were started now")
	f.StringArrayVar(&x.wanted.Env, "env", nil, "with --dry-run of an image, as 'ctr run --env': `KEY=VALUE`, repeatable")
	f.StringArrayVar(&x.wanted.Annotations, "annotation", nil, "as 'ctr run --annotation': `KEY=VALUE`, repeatable")
	f.StringArrayVar(&x.wanted.Mounts, "mount", nil, "as 'ctr run --mount': `type=bind,src=/a,dst=/b,options=rbind:ro`, repeatable")
	f.StringVarP(&x.wanted.User, "user", "u", "", "as 'ctr run --user': `USER[:GROUP]`")
	f.StringVar(&x.wanted.Cwd, "cwd", "", "as 'ctr run --cwd': `DIR`")
	f.BoolVarP(&x.wanted.TTY, "tty", "t", false, "as 'ctr run --tty'")
	f.BoolVar(&x.wanted.NetHost, "net-host", false, "as 'ctr run --net-host'")
	f.BoolVar(&x.wanted.ReadOnly, "read-only", false, "as 'ctr run --read-only'")
	namespaceFlag(cmd, &x.namespace)
	addressFlag(cmd, &x.address)
	jsonFlag(cmd, &x.asJSON, "the explanation")
	return cmd
}

// imageFlags are those that mean something with --dry-run of an image only.
var imageFlags = []string{"env", "annotation", "mount", "user", "cwd", "tty", "net-host", "read-only"}

func (x *explain) run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return &usageError{errors.New("give one CONTAINER or IMAGE, not 0 arguments")}
	}
	what := args[0]
	x.wanted.Image, x.wanted.Args = what, args[1:]
	if !x.dryRun {
		if len(args) > 1 {
			return &usageError{fmt.Errorf("give one CONTAINER or IMAGE, not %d arguments; arguments of a program need --dry-run", len(args))}
		}
		for _, name := range imageFlags {
			if x.cmd.Flags().Changed(name) {
				return &usageError{fmt.Errorf("--%s: give --dry-run, too", name)}
			}
		}
	}
	for _, m := range x.wanted.Mounts {
		if _, err := dryrun.ParseMount(m); err != nil {
			return &usageError{fmt.Errorf("--%w", err)}
		}
	}
	for _, e := range x.wanted.Annotations {
		if key, _, ok := strings.Cut(e, "="); !ok || key == "" {
			return &usageError{fmt.Errorf("--annotation %q: write KEY=VALUE", e)}
		}
	}
	stop := x.app.env.Progress.Show(func(elapsed time.Duration) string {
		return fmt.Sprintf("asking containerd at %s: %s", x.address, elapsed.Truncate(time.Second))
	})
	x.done = stop
	defer stop()
	r, err := x.app.report(ctx, x.cmd)
	if err != nil {
		return err
	}
	if x.dryRun {
		return x.tryRun(ctx, r, what)
	}
	if !isImageName(what) {
		e, err := r.Explain(x.namespace, what)
		if err == nil {
			return x.write(r, e)
		}
		if !errors.Is(err, checkpoint.ErrNotFound) {
			return err
		}
		if !x.isImage(ctx, r, what) {
			return x.notStarted(ctx, what, err)
		}
	}
	return x.image(ctx, r, what)
}

// isImageName says that a name cannot be a container's id.
func isImageName(s string) bool { return strings.ContainsAny(s, "/:@") }

// isImage says that containerd, or a checkpoint, knows an image of that name.
func (x *explain) isImage(ctx context.Context, r *report.Report, name string) bool {
	entries, err := r.Store.List()
	if err == nil {
		for _, e := range entries {
			if e.Checkpoint.Source.Image == name {
				return true
			}
		}
	}
	d, ctx, err := daemon.Connect(ctx, x.address, x.namespace)
	if err != nil {
		return false
	}
	defer d.Close()
	_, err = d.ImageService().Get(ctx, name)
	return err == nil
}

// notStarted adds to the error that no start is recorded what containerd knows of the
// container.
func (x *explain) notStarted(ctx context.Context, id string, err error) error {
	d, ctx, derr := daemon.Connect(ctx, x.address, x.namespace)
	if derr != nil {
		return err
	}
	defer d.Close()
	c, derr := d.ContainerService().Get(ctx, id)
	switch {
	case errdefs.IsNotFound(derr):
		return fmt.Errorf("%w; containerd knows neither a container nor an image of that name in this namespace", err)
	case derr != nil:
		return err
	case c.Runtime.Name != dryrun.Runtime:
		return fmt.Errorf("%w; the container's runtime is %s: create it with --runtime %s", err, c.Runtime.Name, dryrun.Runtime)
	}
	return fmt.Errorf("%w; the container was not started yet: `snapctl explain --dry-run -n %s %s` says how it would", err, x.namespace, id)
}

// image explains the starts of an image. Without containerd it tells what the store knows.
func (x *explain) image(ctx context.Context, r *report.Report, name string) error {
	i := report.Image{Namespace: x.namespace, Name: name}
	d, dctx, err := daemon.Connect(ctx, x.address, x.namespace)
	if err != nil {
		i.PlanErr = err
	} else {
		defer d.Close()
		p, err := dryrun.Image(dctx, d.Client, x.node(r), x.namespace, dryrun.Wanted{Image: name})
		if i.PlanErr = err; err == nil {
			i.Plan = &p
		}
		made, err := d.ContainerService().List(dctx, fmt.Sprintf("image==%q", name))
		if err != nil {
			return fmt.Errorf("ask containerd for the containers of %s: %w", name, err)
		}
		for _, c := range made {
			i.Containers = append(i.Containers, c.ID)
		}
	}
	e, err := r.ExplainImage(i)
	if err != nil {
		return err
	}
	if len(e.Registered)+len(e.Starts) == 0 && i.PlanErr != nil {
		if errdefs.IsNotFound(i.PlanErr) {
			return fmt.Errorf("explain image %s: containerd has none of that name in namespace %s, and no checkpoint was taken of one; `ctr -n %s images ls` lists them",
				human.Text(name), x.namespace, x.namespace)
		}
		return fmt.Errorf("explain image %s: no checkpoint was taken of it, and more is not known: %w", human.Text(name), i.PlanErr)
	}
	return x.write(r, e)
}

// tryRun says how a container, or one of an image, would start.
func (x *explain) tryRun(ctx context.Context, r *report.Report, what string) error {
	d, ctx, err := daemon.Connect(ctx, x.address, x.namespace)
	if err != nil {
		return err
	}
	defer d.Close()
	p, err := x.plan(ctx, d, r, what)
	if err != nil {
		return err
	}
	e, err := r.DryRun(p)
	if err != nil {
		return err
	}
	return x.write(r, e)
}

func (x *explain) plan(ctx context.Context, d *daemon.Daemon, r *report.Report, what string) (dryrun.Plan, error) {
	if !isImageName(what) {
		p, err := dryrun.Container(ctx, d.Client, x.node(r), x.namespace, what)
		switch {
		case errors.Is(err, dryrun.ErrRuns):
			return p, fmt.Errorf("dry run of %s: %w; `snapctl explain -n %s %s` says how it started", what, err, x.namespace, what)
		case err == nil && x.changed():
			return p, &usageError{fmt.Errorf("%s is a container, whose spec is made: arguments and flags of `ctr run` are for images", what)}
		case !errdefs.IsNotFound(err):
			return p, err
		}
	}
	p, err := dryrun.Image(ctx, d.Client, x.node(r), x.namespace, x.wanted)
	if errdefs.IsNotFound(err) && p.Image == "" {
		kind := "container and no image"
		if isImageName(what) {
			kind = "image"
		}
		return p, fmt.Errorf("dry run of %s: containerd has no %s of that name in namespace %s; `ctr -n %s images ls` lists images, which are named in full",
			human.Text(what), kind, x.namespace, x.namespace)
	}
	return p, err
}

// changed says that arguments were given, or a flag that is for images.
func (x *explain) changed() bool {
	changed := len(x.wanted.Args) > 0
	for _, name := range imageFlags {
		changed = changed || x.cmd.Flags().Changed(name)
	}
	return changed
}

func (x *explain) node(r *report.Report) dryrun.Node {
	return dryrun.Node{
		Node: decide.Node{Store: r.Store, Facts: func(ctx context.Context) (checkpoint.HostFacts, error) {
			return decide.HostFacts(ctx, r.Store.Root())
		}},
		Defaults: x.app.defaults(),
	}
}

// write writes one of the explanations.
func (x *explain) write(r *report.Report, e interface{ Write(*report.Report) error }) error {
	x.done()
	if x.asJSON {
		return report.JSON(r.Out, e)
	}
	return e.Write(r)
}

// Command snapctl is the operator's command of the runtime: it captures running
// containers, shows and removes the checkpoints that are registered on the node,
// explains how a container started, and checks whether the node can capture
// and restore at all.
package main

import (
	"context"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/cmd/snapctl/internal/cli"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/progress"
)

// version is set when the binary is linked.
var version = "unknown"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	env := cli.Env{
		Args:    os.Args[1:],
		Stdout:  os.Stdout,
		Stderr:  os.Stderr,
		Version: version,
		Now:     time.Now,
	}
	if progress.IsTerminal(os.Stderr) {
		env.Progress.Terminal = os.Stderr
	} else {
		env.Progress.Plain = os.Stderr
	}
	code := cli.Main(ctx, env)
	stop()
	os.Exit(code)
}

// Command shim is our shim, but that it breaks on demand: for the two tests of
// containerd's test-suite that want that of a runtime. With the stock shim, runc-fp, a
// runc, sees to it; this does the same at the same places.
package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/integration/failpoint"
	"github.com/containerd/containerd/v2/pkg/fifosync"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/cmd/containerd-shim-snap-v2/wire"
	"github.com/containerd-snap/snap/oci/spec"
	"github.com/containerd-snap/snap/shim/lifecycle"
	"github.com/containerd-snap/snap/shim/start"
	"github.com/containerd-snap/snap/shim/task"
)

// A container of the test-suite names what is to go wrong with it in this annotation.
const (
	profileKey  = "oci.runc.failpoint.profile"
	killInit    = "issue9103"
	delayedExec = "delayExec"
)

func main() {
	wire.Main("io.containerd.snap.v2", "failpoint", wire.Hooks{Launch: breakOnDemand})
}

// breakOnDemand starts tasks as launch does, and breaks those that ask for it.
func breakOnDemand(launch task.Launch) task.Launch {
	return func(ctx context.Context, req start.Request, oom func()) (task.Init, error) {
		i, err := launch(ctx, req, oom)
		if err != nil {
			return nil, err
		}
		annotations, err := spec.LoadAnnotations(req.Bundle)
		if err != nil {
			return nil, err
		}
		switch annotations[profileKey] {
		case killInit:
			// As if for lack of memory, before anybody hears of the task.
			if err := unix.Kill(i.PID(), unix.SIGKILL); err != nil {
				return nil, err
			}
			time.Sleep(3 * time.Second)
		case delayedExec:
			return slowExecs{i}, nil
		}
		return i, nil
	}
}

// slowExecs is a container whose processes are not started before somebody
// who has been told lets them.
type slowExecs struct{ task.Init }

func (s slowExecs) Exec(ctx context.Context, cfg lifecycle.ExecConfig) (lifecycle.Process, error) {
	env := map[string]string{}
	for _, e := range cfg.Spec.Env {
		name, value, _ := strings.Cut(e, "=")
		env[name] = value
	}
	ready, err := fifosync.NewTrigger(env[failpoint.DelayExecReadyEnv], 0o600)
	if err != nil {
		return nil, fmt.Errorf("delay exec: %w", err)
	}
	delay, err := fifosync.NewWaiter(env[failpoint.DelayExecDelayEnv], 0o600)
	if err != nil {
		return nil, fmt.Errorf("delay exec: %w", err)
	}
	if err := ready.Trigger(); err != nil {
		return nil, fmt.Errorf("delay exec: %w", err)
	}
	if err := delay.Wait(); err != nil {
		return nil, fmt.Errorf("delay exec: %w", err)
	}
	return s.Init.Exec(ctx, cfg)
}

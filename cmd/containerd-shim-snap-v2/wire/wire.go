// Package wire is the shim's program, and the only place that wires it. The
// product's binary is nothing else; the one of the tests that injects faults
// adds its hooks, and is else the same.
package wire

import (
	"cmp"
	"context"
	"os"
	"time"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/containerd/v2/pkg/shutdown"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/log"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"

	"github.com/containerd-snap/snap/checkpoint/store"
	"github.com/containerd-snap/snap/config"
	"github.com/containerd-snap/snap/shim/cgroup"
	"github.com/containerd-snap/snap/shim/events"
	"github.com/containerd-snap/snap/shim/identity"
	"github.com/containerd-snap/snap/shim/libct"
	"github.com/containerd-snap/snap/shim/manager"
	"github.com/containerd-snap/snap/shim/start"
	"github.com/containerd-snap/snap/shim/task"
)

// Hooks let a program that is not the product's look into a start.
type Hooks struct {
	// Launch replaces how tasks are started by what it makes of that.
	Launch func(task.Launch) task.Launch
	// Phase is called at the end of each phase of the start of a container.
	Phase func(id, phase string)
}

// Main is the shim's main function: a container's init, where libcontainer
// executes it as one, or else what containerd asks for. name is the runtime's.
func Main(name, version string, hooks Hooks) {
	began := time.Now()
	if len(os.Args) > 1 && os.Args[1] == libct.InitArg {
		libct.Init()
	}
	registry.Register(&plugin.Registration{
		Type:     plugins.TTRPCPlugin,
		ID:       "task",
		Requires: []plugin.Type{plugins.EventPlugin, plugins.InternalPlugin},
		InitFn:   func(ic *plugin.InitContext) (any, error) { return newService(ic, hooks, began) },
	})
	shim.RunShim(context.Background(), manager.New(name, version, began), func(c *shim.Config) {
		// Each process is waited for by a goroutine of its own; a loop that waits
		// for any child would steal exits from libcontainer. Orphans are adopted and
		// buried by package libct, for containers that need it.
		c.NoReaper = true
		c.NoSubreaper = true
	})
}

// newService wires the server, whose program began at a time.
func newService(ic *plugin.InitContext, hooks Hooks, began time.Time) (any, error) {
	cgroup.Hasten() // for the first container; those that follow in a pod have their own
	pp, err := ic.GetByID(plugins.EventPlugin, "publisher")
	if err != nil {
		return nil, err
	}
	ss, err := ic.GetByID(plugins.InternalPlugin, "shutdown")
	if err != nil {
		return nil, err
	}
	publisher, sd := pp.(shim.Publisher), ss.(shutdown.Service)
	ns, err := namespaces.NamespaceRequired(ic.Context)
	if err != nil {
		return nil, err
	}
	// The server was started in the bundle of a pod's first container, which may go
	// before the others: they would start from a directory that is no more.
	if err := os.Chdir("/"); err != nil { //nolint:forbidigo // for good, so that no task depends on it
		return nil, err
	}
	starter := &start.Starter{
		Namespace: ns,
		Address:   manager.Address(),
		Images:    identity.Client{Address: ic.Properties[plugins.PropertyGRPCAddress]},
		OnPhase:   hooks.Phase,
	}
	var configErr error
	starter.Config, configErr = config.Load()
	starter.Store, err = store.Open(starter.Config.Root)
	if starter.StoreErr = cmp.Or(configErr, err); starter.StoreErr != nil {
		// A node without a usable configuration or store still runs its containers.
		log.G(ic.Context).WithError(starter.StoreErr).Warn("containers boot: the checkpoint store cannot be used")
	}
	queue := events.NewQueue(ic.Context, publisher.Publish)
	starter.Announce = queue.Announce
	sd.RegisterCallback(func(ctx context.Context) error {
		defer publisher.Close()
		return queue.Close(ctx)
	})
	if address := starter.Address; address != "" {
		sd.RegisterCallback(func(context.Context) error { return shim.RemoveSocket(address) })
	}
	launch := task.LaunchBy(starter)
	if hooks.Launch != nil {
		launch = hooks.Launch(launch)
	}
	starter.Shim = manager.Birth(began)
	return task.New(launch, queue, sd.Shutdown), nil
}

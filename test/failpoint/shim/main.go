// Command shim is our shim, wired as the product's, with faults at the places
// that a container names.
package main

import (
	"fmt"
	"os"

	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"

	"github.com/containerd-snap/snap/cmd/containerd-shim-snap-v2/wire"
	"github.com/containerd-snap/snap/oci/spec"
	"github.com/containerd-snap/snap/test/failpoint/fault"
)

func main() {
	// A server's working directory is the bundle of its first container; as a
	// container's init it has none to speak of.
	var annotations map[string]string
	if bundle, err := os.Getwd(); err == nil {
		if annotations, err = spec.LoadAnnotations(bundle); err != nil && !os.IsNotExist(err) {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	f := fault.New(annotations)
	registry.Register(&plugin.Registration{
		Type:   plugins.TTRPCPlugin,
		ID:     "fault",
		InitFn: func(*plugin.InitContext) (any, error) { return f, nil },
	})
	wire.Main("io.containerd.snapfail.v2", "failpoint", wire.Hooks{Phase: f.Phase})
}

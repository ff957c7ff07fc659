// Command containerd-shim-snap-v2 is a containerd runtime shim that restores a
// task from a registered checkpoint where one fits, and boots it otherwise.
//
// containerd executes it with the action start or delete, or with -info; start
// executes it again, without an action, as the server; and libcontainer executes it
// with "init" as a container's init.
package main

import (
	"context"
	"os"

	"github.com/containerd/containerd/v2/pkg/shim"

	"github.com/containerd-snap/snap/shim/libct"
	"github.com/containerd-snap/snap/shim/manager"
)

// name is what `ctr run --runtime` takes.
const name = "io.containerd.snap.v2"

// version is set when the binary is linked.
var version = "unknown"

func main() {
	if len(os.Args) > 1 && os.Args[1] == libct.InitArg {
		libct.Init()
	}
	shim.RunShim(context.Background(), manager.New(name, version), func(c *shim.Config) {
		// Each process is waited for by a goroutine of its own; a loop that waits
		// for any child would steal exits from libcontainer.
		c.NoReaper = true
		c.NoSubreaper = true
	})
}

// Command containerd-shim-snap-v2 is a containerd runtime shim that restores a
// task from a registered checkpoint where one fits, and boots it otherwise.
//
// containerd executes it with the action start or delete, or with -info; start
// executes it again, without an action, as the server; and libcontainer executes it
// with "init" as a container's init.
package main

import "github.com/containerd-snap/snap/cmd/containerd-shim-snap-v2/wire"

// name is what `ctr run --runtime` takes.
const name = "io.containerd.snap.v2"

// version is set when the binary is linked.
var version = "unknown"

func main() { wire.Main(name, version, wire.Hooks{}) }

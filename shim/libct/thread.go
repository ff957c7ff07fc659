package libct

import "runtime"

// The program's first thread belongs to its first goroutine, and so to no other.
//
// libcontainer and this package run goroutines that enter a container's
// namespaces on a thread of their own, which ends with them. The first thread
// does not end: Go parks it. One of them that happened to run there would leave
// it in the container's mount namespace for good, which then keeps the
// container's mounts alive, and makes /proc/self, where everybody looks for
// mounts, show the container's instead of ours.
func init() { runtime.LockOSThread() }

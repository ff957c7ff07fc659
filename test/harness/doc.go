// Package harness runs a containerd of its own, with our shim, for tests and
// for the demo: nothing of the host's containerd, configuration or store is
// touched, and when a node is stopped it tells what was left behind.
//
// A process that starts nodes must live in a mount namespace of its own, with
// a tmpfs on /run, because CRIU caches there what it learns about the kernel:
// see EnterPrivate. The programs are found through the environment, which the
// Makefile sets: SNAP_BIN is the directory with ours, SNAP_TOOLS/bin that with
// containerd and ctr; criu and the host's tools that CRIU calls are taken from PATH.
//
// A Node may be used by many goroutines at once; it has no locks, because
// nothing of it changes between Start and Stop, but by Kill and Restart.
package harness

package libct

import (
	"fmt"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// InNetNS runs fn in the network namespace of process pid. What fn opens belongs to
// that namespace wherever it is used later; what fn lets other goroutines do
// does not happen in it.
func InNetNS(pid int, fn func() error) error {
	errc := make(chan error, 1)
	go func() {
		// The thread is never unlocked: it ends with the goroutine, and nobody
		// else finds himself in its namespace. See thread.go for the first one.
		runtime.LockOSThread()
		errc <- enterNetNS(pid, fn)
	}()
	return <-errc
}

func enterNetNS(pid int, fn func() error) error {
	ns, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/net")
	if err != nil {
		return fmt.Errorf("find the network namespace: %w", err)
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter the network namespace: %w", err)
	}
	return fn()
}

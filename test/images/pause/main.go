// Command pause is the program of a pod's sandbox: it holds the pod's
// namespaces by being there, buries what is orphaned in a shared pid namespace,
// and ends when it is told to.
package main

import (
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

func main() {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGCHLD, unix.SIGINT, unix.SIGTERM)
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "pause: this is meant to be the first process of a pod")
	}
	for {
		// Before the first signal, too: a child may have ended by then. Several
		// children may stand behind one signal.
		for {
			if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); pid <= 0 && err != unix.EINTR {
				break
			}
		}
		if sig := <-signals; sig != unix.SIGCHLD {
			return
		}
	}
}

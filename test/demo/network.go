package main

import (
	"fmt"
	"os"

	"github.com/containerd-snap/snap/test/harness"
)

// noteNetwork remembers a task's network namespace, so that its end can be verified.
func (d *demo) noteNetwork(pid int) error {
	task, err := harness.NetNSOf(pid)
	if err != nil {
		return err
	}
	own, err := harness.NetNSOf(os.Getpid())
	if err != nil {
		return err
	}
	if task == own {
		return fmt.Errorf("the task of process %d has no network namespace of its own", pid)
	}
	d.networks[task] = true
	return nil
}

// networksGone verifies that nobody holds a network namespace that a task had.
func (d *demo) networksGone() error {
	for n := range d.networks {
		holders, err := n.Holders()
		if err != nil {
			return err
		}
		if len(holders) > 0 {
			return fmt.Errorf("remove the demo's containers: a network namespace is held by %s", holders)
		}
	}
	return nil
}

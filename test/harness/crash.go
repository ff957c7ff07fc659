package harness

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"
)

// Crash ends containerd, and with all everything that runs in the node's name, too, as
// a power cut would: without a word to anybody. Mounts and files stay as they are.
func (n *Node) Crash(all bool) error {
	if err := n.cmd.Process.Kill(); err != nil {
		return fmt.Errorf("kill containerd: %w", err)
	}
	<-n.exited
	// More than one round: what is killed may have been making something.
	for all {
		l, err := n.Leftovers()
		if err != nil {
			return err
		}
		if len(l.Processes) == 0 {
			break
		}
		n.thaw(l)
		for _, p := range l.Processes {
			_ = unix.Kill(p.PID, unix.SIGKILL) // it may have ended
		}
	}
	return nil
}

// Relaunch starts containerd again after a Crash. Clients, and what they gave out,
// are to be had anew.
func (n *Node) Relaunch(ctx context.Context, o Options) error {
	if err := n.client.Close(); err != nil {
		return err
	}
	n.client = nil
	n.exited = make(chan struct{})
	if err := n.launch(o); err != nil {
		return err
	}
	return n.waitReady(ctx)
}

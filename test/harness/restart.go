package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Kill ends containerd as a lack of memory does: by SIGKILL. Shims and tasks
// live on. No other method but Restart and Stop may be used until Restart.
func (n *Node) Kill(ctx context.Context) error {
	if err := n.cmd.Process.Signal(unix.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill containerd: %w", err)
	}
	select {
	case <-n.exited:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("kill containerd: %w", ctx.Err())
	}
}

// Restart starts containerd again after Kill, on what it left, and waits until
// it answers. The node's client finds it by itself.
func (n *Node) Restart(ctx context.Context) error {
	n.exited = make(chan struct{})
	if err := n.launch(n.options); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		ok, err := n.client.IsServing(ctx)
		if err == nil && ok {
			return nil
		}
		select {
		case <-n.exited:
			return fmt.Errorf("wait for containerd: it ended: %s", n.logTail())
		case <-ctx.Done():
			return fmt.Errorf("wait for containerd: %w: %w: %s", ctx.Err(), err, n.logTail())
		case <-time.After(pollInterval):
		}
	}
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/test/measure"
)

// askInterval is the pause between two questions of the client that goes on
// asking: it shall notice a standstill, not be the load.
const askInterval = 4 * time.Millisecond

// sample is one answer of a program and when it came.
type sample struct {
	at      time.Time
	counter int
}

// client asks a program until it is told to stop. It fails with the first
// question that is not answered.
type client struct {
	stop func()
	// done is closed when samples and err are final.
	done    chan struct{}
	samples []sample
	err     error
}

// goOnAsking starts a client.
func goOnAsking(ctx context.Context, l life) *client {
	ctx, stop := context.WithCancel(ctx)
	c := &client{stop: stop, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		for ctx.Err() == nil {
			a, err := l.program.Ask(ctx)
			switch {
			case err != nil && ctx.Err() != nil:
				return
			case err != nil:
				c.err = fmt.Errorf("client of %s: %w", l.id, err)
				return
			case a.BootID != l.first.BootID:
				c.err = fmt.Errorf("client of %s: another life of the program answers", l.id)
				return
			}
			c.samples = append(c.samples, sample{time.Now(), a.Counter})
			select {
			case <-ctx.Done():
			case <-time.After(askInterval):
			}
		}
	}()
	return c
}

// finish stops the client and returns what it got.
func (c *client) finish() ([]sample, error) {
	c.stop()
	<-c.done
	return c.samples, c.err
}

// showCapture registers a checkpoint of the running program.
func showCapture(ctx context.Context, d *demo) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, captureTimeout)
	defer cancel()
	c := goOnAsking(ctx, d.cold)
	began := time.Now()
	running, kill := measure.ToTheEnd(ctx, captureTimeout)
	defer kill()
	out, err := d.node.Snapctl(running, "create", coldID, "--name", checkpointName, "--json")
	took := time.Since(began)
	// One more answer proves that it goes on.
	last, askErr := d.cold.program.Ask(ctx)
	samples, clientErr := c.finish()
	if err := errors.Join(err, clientErr, askErr); err != nil {
		return "", err
	}
	var e checkpoint.Entry
	if err := json.Unmarshal([]byte(out.Stdout), &e); err != nil {
		return "", fmt.Errorf("read what snapctl create printed: %w", err)
	}
	samples = append(samples, sample{time.Now(), last.Counter})
	var ok bool
	if d.captured, ok = nextAfter(samples, e.Checkpoint.CreatedAt); !ok {
		return "", fmt.Errorf("capture %s: its client has no answers from before and after %s", coldID, e.Checkpoint.CreatedAt)
	}
	d.figures.CaptureMS = measure.Milliseconds(took)
	d.figures.PauseMS = e.Checkpoint.Timing.PauseMS
	d.figures.ClientGapMS = measure.Milliseconds(longestGap(samples))
	d.figures.Program.CheckpointMB = float64(e.Checkpoint.Bytes()) / 1e6
	list, err := d.node.Snapctl(ctx, "ls")
	if err != nil {
		return "", err
	}
	d.progress.note("snapctl ls", list.Stdout)
	return fmt.Sprintf("registered after %s; it stood still for %s and answered %d questions, the last as number %d",
		measure.Duration(d.figures.CaptureMS), measure.Duration(d.figures.PauseMS), len(samples), last.Counter), nil
}

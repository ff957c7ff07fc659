package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/test/harness"
	"github.com/containerd-snap/snap/test/measure"
)

// annotation is a flag of ctr that sets one of ours.
func annotation(key, value string) string {
	return "--annotation=io.containerd.snap.v2/" + key + "=" + value
}

// boot boots the program under a runtime, and loads its data.
func (b *bench) boot(ctx context.Context, p *program, runtime string, flags ...string) (measure.Life, error) {
	id := b.id(p.name)
	command := append([]string{"run", "--detach", "--runtime", runtime}, flags...)
	command = append(append(command, p.image, id), p.args...)
	return measure.Run(ctx, b.node, measure.Start{ID: id, Command: command, Answer: func(ctx context.Context, pid int) error {
		if p.load != nil {
			if err := p.load(ctx, pid); err != nil {
				return err
			}
		}
		return p.answer(ctx, pid)
	}})
}

// captured is a registered checkpoint and what it cost.
type captured struct {
	entry checkpoint.Entry
	took  time.Duration
}

// take captures a task, which goes on.
func (b *bench) take(ctx context.Context, id, name string) (captured, error) {
	ctx, cancel := measure.ToTheEnd(ctx, captureTimeout)
	defer cancel()
	began := time.Now()
	out, err := b.node.Snapctl(ctx, "create", id, "--name", name, "--json")
	c := captured{took: time.Since(began)}
	if err == nil {
		err = json.Unmarshal([]byte(out.Stdout), &c.entry)
	}
	return c, err
}

// forget removes checkpoints.
func (b *bench) forget(ctx context.Context, names ...string) error {
	if len(names) == 0 {
		return nil
	}
	ctx, cancel := measure.ToTheEnd(ctx, commandTimeout)
	defer cancel()
	_, err := b.node.Snapctl(ctx, append([]string{"rm"}, names...)...)
	return err
}

// restored is a task that is back.
type restored struct {
	measure.Life
	record checkpoint.Start
}

// back restores the program under our runtime. Without a name the runtime finds the checkpoint
// by itself. It fails if the task was not restored, or its memory came back in another way.
func (b *bench) back(ctx context.Context, p *program, name string, memory checkpoint.MemoryMode, answer func(context.Context, int) error) (restored, error) {
	id := b.id(p.name)
	command := []string{"run", "--detach", "--runtime", harness.Runtime, annotation("memory", string(memory))}
	if name != "" {
		command = append(command, annotation("checkpoint", name))
	}
	command = append(append(command, p.image, id), p.args...)
	var r restored
	var err error
	if r.Life, err = measure.Run(ctx, b.node, measure.Start{ID: id, Command: command, Answer: answer}); err != nil {
		// What was made of it is removed, if anything was.
		return r, errors.Join(err, b.removeHalf(ctx, id))
	}
	if r.record, err = measure.Explain(ctx, b.node, id); err != nil {
		return r, err
	}
	if r.record.Outcome != checkpoint.Restore || r.record.Memory != memory {
		return r, fmt.Errorf("start %s: it was a %s (%s%s), its memory %q, and a restore with memory %s was asked for",
			id, r.record.Outcome, r.record.Decision.Reason, r.record.Fallback, r.record.Memory, memory)
	}
	return r, nil
}

// removeHalf removes a container whose start failed; ctr has removed what it made, or not.
func (b *bench) removeHalf(ctx context.Context, id string) error {
	ctx, cancel := measure.ToTheEnd(ctx, commandTimeout)
	defer cancel()
	if _, err := b.node.Client().LoadContainer(ctx, id); err != nil {
		return nil
	}
	_, _ = b.node.Ctr(ctx, "tasks", "delete", "--force", id) // there may be none
	_, err := b.node.Ctr(ctx, "containers", "delete", id)
	return err
}

// stockImage is the image of a checkpoint of the stock runtime.
func stockImage(p *program) string { return "localhost/snap/stock-" + p.name + ":1" }

// stockTake captures a task of the stock runtime, which goes on.
func (b *bench) stockTake(ctx context.Context, p *program, id string) (time.Duration, error) {
	var began time.Time
	err := settled(ctx, func() error {
		began = time.Now()
		return b.ctr(ctx, "containers", "checkpoint", "--rw", "--task", id, stockImage(p))
	})
	return time.Since(began), err
}

// stockBack restores it. runc leaves the network's configuration out of its checkpoints:
// without our help the program could not be reached, even on lo.
func (b *bench) stockBack(ctx context.Context, p *program, answer func(context.Context, int) error) (measure.Life, error) {
	id := b.id(p.name)
	l, err := measure.Run(ctx, b.node, measure.Start{
		ID: id, Command: []string{"containers", "restore", "--rw", "--live", id, stockImage(p)},
		Prepare: harness.SetLoopbackUp, Answer: answer,
	})
	if err != nil {
		err = errors.Join(err, b.removeHalf(ctx, id))
	}
	return l, errors.Join(err, b.dropUnpacked())
}

// dropUnpacked removes the images that containerd unpacked for a restore of the stock runtime: it
// leaves them where they are.
func (b *bench) dropUnpacked() error {
	dirs, err := filepath.Glob(filepath.Join(b.node.Dir, "tmp", "ctrd-checkpoint*"))
	for _, dir := range dirs {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

// stockForget removes the stock runtime's checkpoint, and waits until its content is gone.
func (b *bench) stockForget(ctx context.Context, p *program) error {
	return b.ctr(ctx, "images", "rm", "--sync", stockImage(p))
}

// specOf reads the specification of a container that runs.
func (b *bench) specOf(id string) (map[string]any, error) {
	data, err := os.ReadFile(filepath.Join(b.node.Dir, "state", "io.containerd.runtime.v2.task", b.node.Namespace, id, "config.json"))
	if err != nil {
		return nil, err
	}
	var spec map[string]any
	err = json.Unmarshal(data, &spec)
	return spec, err
}

// brief is an error for the results: the end of what it says, which is where the reason stands.
func brief(err error) string {
	const most = 300
	text := strings.Join(strings.Fields(err.Error()), " ")
	if len(text) <= most {
		return text
	}
	_, text, _ = strings.Cut(text[len(text)-most:], " ")
	return "… " + text
}

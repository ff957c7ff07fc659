package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/containerd-snap/snap/test/harness"
	"github.com/containerd-snap/snap/test/measure"
)

// bootResult is what a trivial container costs under either runtime.
type bootResult struct {
	// RuncMS and SnapMS are `ctr run --rm` of a program that ends at once, from the command to its end.
	RuncMS *float64 `json:"runc_ms"`
	SnapMS *float64 `json:"snap_ms"`
	// Ratio is stock/ours of it.
	Ratio *ratio        `json:"ratio"`
	Runc  *runtimeCosts `json:"runc"`
	Snap  *runtimeCosts `json:"snap"`
}

// runtimeCosts is what one runtime takes for single calls of its, as containerd's client sees
// them: to make a task, to start it, to execute a program in it to its end, to delete it.
type runtimeCosts struct {
	RunMS    *float64 `json:"run_ms"`
	CreateMS *float64 `json:"create_ms"`
	StartMS  *float64 `json:"start_ms"`
	ExecMS   *float64 `json:"exec_ms"`
	DeleteMS *float64 `json:"delete_ms"`
	// ShimPSSBytes is what the shim of one running container holds; BinaryBytes the size of its
	// program, with that of runc where it needs one.
	ShimPSSBytes int64                `json:"shim_pss_bytes"`
	BinaryBytes  int64                `json:"binary_bytes"`
	Runs         map[string][]float64 `json:"runs_ms"`
}

const busyboxImage = "localhost/snap/busybox:1"

func busybox() *program {
	return &program{name: "busybox", image: busyboxImage, make: func(context.Context, string) (string, error) { return harness.Image("busybox") }}
}

// settle is how long a shim is left alone before its memory is measured: after a second
// without a call it gives back what its start took.
const settle = 3 * time.Second

func measureBoots(ctx context.Context, b *bench) error {
	if err := b.load(ctx, busybox()); err != nil {
		return err
	}
	r := &bootResult{Runc: &runtimeCosts{Runs: map[string][]float64{}}, Snap: &runtimeCosts{Runs: map[string][]float64{}}}
	b.results.Boot = r
	both := []struct {
		runtime string
		costs   *runtimeCosts
	}{{measure.StockRuntime, r.Runc}, {harness.Runtime, r.Snap}}
	// Programs that were just linked take more: of what was written at once the kernel maps more at once.
	if err := b.dropCache(); err != nil {
		return err
	}
	// The first of each does not count.
	for n := range 1 + b.rounds(20, 3) {
		for _, c := range both {
			if err := b.runOnce(ctx, c.runtime, c.costs, n > 0); err != nil {
				return err
			}
		}
	}
	for n := range 1 + b.rounds(12, 3) {
		for _, c := range both {
			if err := b.callsOnce(ctx, c.runtime, c.costs, n > 0); err != nil {
				return err
			}
		}
	}
	for range b.rounds(12, 2) {
		if err := b.bootPhases(ctx); err != nil {
			return err
		}
	}
	var err error
	tools, ours := os.Getenv(harness.EnvTools), os.Getenv(harness.EnvBin)
	if r.Runc.BinaryBytes, err = sizes(filepath.Join(tools, "bin", "containerd-shim-runc-v2"), filepath.Join(tools, "bin", "runc")); err != nil {
		return err
	}
	if r.Snap.BinaryBytes, err = sizes(filepath.Join(ours, "containerd-shim-snap-v2")); err != nil {
		return err
	}
	for _, c := range both {
		c.costs.sum()
	}
	r.RuncMS, r.SnapMS, r.Ratio = r.Runc.RunMS, r.Snap.RunMS, ratioOf(r.Runc.Runs["run"], r.Snap.Runs["run"])
	b.say("boot: ctr run --rm: stock %s, ours %s; create %s and %s, start %s and %s", measure.Duration(*r.RuncMS), measure.Duration(*r.SnapMS),
		measure.Duration(*r.Runc.CreateMS), measure.Duration(*r.Snap.CreateMS), measure.Duration(*r.Runc.StartMS), measure.Duration(*r.Snap.StartMS))
	return nil
}

func (c *runtimeCosts) sum() {
	c.RunMS, c.CreateMS, c.StartMS = median(c.Runs["run"]), median(c.Runs["create"]), median(c.Runs["start"])
	c.ExecMS, c.DeleteMS = median(c.Runs["exec"]), median(c.Runs["delete"])
}

// sizes adds the sizes of files.
func sizes(names ...string) (int64, error) {
	var sum int64
	for _, name := range names {
		st, err := os.Stat(name)
		if err != nil {
			return 0, err
		}
		sum += st.Size()
	}
	return sum, nil
}

// runOnce runs a container to its end, and its deletion, by ctr.
func (b *bench) runOnce(ctx context.Context, runtime string, c *runtimeCosts, counts bool) error {
	began := time.Now()
	if err := b.ctr(ctx, "run", "--rm", "--runtime", runtime, busyboxImage, b.id("run"), "/bin/true"); err != nil {
		return err
	}
	if counts {
		c.Runs["run"] = append(c.Runs["run"], measure.Milliseconds(time.Since(began)))
	}
	return nil
}

// callsOnce makes a task, starts it, executes a program in it, ends it and deletes it.
func (b *bench) callsOnce(ctx context.Context, runtime string, c *runtimeCosts, counts bool) (retErr error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	img, err := b.node.Client().GetImage(ctx, busyboxImage)
	if err != nil {
		return err
	}
	id := b.id("calls")
	container, err := b.node.Client().NewContainer(ctx, id, client.WithNewSnapshot(id, img), client.WithRuntime(runtime, nil),
		client.WithNewSpec(oci.WithImageConfig(img), oci.WithProcessArgs("/bin/sleep", "1000")))
	if err != nil {
		return err
	}
	defer func() {
		retErr = errors.Join(retErr, container.Delete(context.WithoutCancel(ctx), client.WithSnapshotCleanup))
	}()
	last := time.Now()
	note := func(what string) {
		now := time.Now()
		if counts {
			c.Runs[what] = append(c.Runs[what], measure.Milliseconds(now.Sub(last)))
		}
		last = time.Now()
	}
	streams := cio.NewCreator(cio.WithStreams(nil, io.Discard, io.Discard), cio.WithFIFODir(b.dir))
	task, err := container.NewTask(ctx, streams)
	if err != nil {
		return err
	}
	note("create")
	deleted := false
	defer func() {
		if !deleted {
			_, err := task.Delete(context.WithoutCancel(ctx), client.WithProcessKill)
			retErr = errors.Join(retErr, err)
		}
	}()
	exited, err := task.Wait(ctx)
	if err != nil {
		return err
	}
	last = time.Now()
	if err := task.Start(ctx); err != nil {
		return err
	}
	note("start")
	if err := execOnce(ctx, task, streams); err != nil {
		return err
	}
	note("exec")
	if err := c.measureShim(int(task.Pid())); err != nil {
		return err
	}
	if err := task.Kill(ctx, 9); err != nil {
		return err
	}
	<-exited
	last = time.Now()
	if _, err := task.Delete(ctx); err != nil {
		return err
	}
	deleted = true
	note("delete")
	return nil
}

// execOnce executes a program in the task to its end.
func execOnce(ctx context.Context, task client.Task, streams cio.Creator) error {
	p, err := task.Exec(ctx, "exec", &specs.Process{Args: []string{"/bin/true"}, Cwd: "/", Env: []string{"PATH=/bin"}}, streams)
	if err != nil {
		return err
	}
	exited, err := p.Wait(ctx)
	if err == nil {
		err = p.Start(ctx)
	}
	if err == nil {
		s := <-exited
		if err = s.Error(); err == nil && s.ExitCode() != 0 {
			err = fmt.Errorf("exec of true ended with status %d", s.ExitCode())
		}
	}
	_, derr := p.Delete(ctx, client.WithProcessKill)
	return errors.Join(err, derr)
}

// measureShim reads, once, what the shim of a task holds: the parent of its init.
func (c *runtimeCosts) measureShim(pid int) error {
	if c.ShimPSSBytes != 0 {
		return nil
	}
	time.Sleep(settle)
	p, err := harness.ReadProcess(pid)
	if err != nil {
		return err
	}
	m, err := harness.ReadMemory(p.PPID)
	c.ShimPSSBytes = m.PSS
	return err
}

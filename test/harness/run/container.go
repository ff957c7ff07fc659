// Package run runs containers of tests on a node: it makes, asks, captures and ends them.
package run

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"

	"github.com/containerd-snap/snap/oci/spec"
	"github.com/containerd-snap/snap/test/harness"
)

// Deadline bounds everything that a test waits for. SNAP_PATIENCE in the environment makes it
// as many times longer, for a machine that is emulated.
var Deadline = patient(30 * time.Second)

func patient(d time.Duration) time.Duration {
	if n, err := strconv.Atoi(os.Getenv("SNAP_PATIENCE")); err == nil && n > 0 {
		return time.Duration(n) * d
	}
	return d
}

// Container is a container of a test, with its task.
type Container struct {
	T    *testing.T
	Node *harness.Node
	client.Container
	Task client.Task
	// Exit gets how the task ended.
	Exit <-chan client.ExitStatus
	// Out is what its streams, or its terminal, said.
	Out *Output
	// Stdin is its input; nil if none was wanted.
	Stdin io.WriteCloser
}

// Want says what container to make.
type Want struct {
	Image       string
	Args        []string
	Annotations map[string]string
	Terminal    bool
	Stdin       bool
	ID          string
	Opts        []oci.SpecOpts
	// Options are the runtime's; nil for none.
	Options any
}

// Probe wants a container that runs the probe.
func Probe(opts ...oci.SpecOpts) Want {
	return Want{Image: ProbeImage, Args: []string{"/bin/probe"}, Opts: opts}
}

// Shell wants a container that runs a script in busybox.
func Shell(script string, opts ...oci.SpecOpts) Want {
	return Want{Image: BusyboxImage, Args: []string{"sh", "-c", script}, Opts: opts}
}

// Annotate adds an annotation of ours.
func (w Want) Annotate(key, value string) Want {
	w.Annotations = maps.Clone(w.Annotations)
	if w.Annotations == nil {
		w.Annotations = map[string]string{}
	}
	w.Annotations[spec.Prefix+key] = value
	return w
}

// Named gives the container an identifier that says of which test it is.
func (w Want) Named(t *testing.T, name string) Want {
	w.ID = strings.ReplaceAll(t.Name(), "/", ".") + "-" + name
	return w
}

var serial atomic.Int64

// Serial is a number that it gives to nobody else: for unique names.
func Serial() int64 { return serial.Add(1) }

// New makes a container without a task. It is removed, with its task,
// when the test ends.
func New(t *testing.T, n *harness.Node, w Want) *Container {
	t.Helper()
	c, err := Make(t, n, w)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			c.Tell()
		}
		if err := c.Remove(); err != nil {
			left, lerr := n.Leftovers()
			t.Errorf("%v; on the node (%v):\n%s", err, lerr, left)
		}
	})
	return c
}

// Make makes a container without a task, for the caller to remove.
func Make(t *testing.T, n *harness.Node, w Want) (*Container, error) {
	ctx := Context(t)
	image, err := n.Client().GetImage(ctx, w.Image)
	if err != nil {
		return nil, err
	}
	id := w.ID
	if id == "" {
		id = fmt.Sprintf("c%d", Serial())
	}
	opts := []oci.SpecOpts{oci.WithImageConfig(image), oci.WithEnv([]string{"SNAP_TEST=" + t.Name()})}
	if len(w.Args) > 0 {
		opts = append(opts, oci.WithProcessArgs(w.Args...))
	}
	if w.Terminal {
		opts = append(opts, oci.WithTTY)
	}
	opts = append(opts, oci.WithAnnotations(w.Annotations))
	opts = append(opts, w.Opts...)
	c := &Container{T: t, Node: n, Out: &Output{}}
	c.Container, err = n.Client().NewContainer(ctx, id,
		client.WithImage(image),
		client.WithNewSnapshot(id, image),
		client.WithRuntime(harness.Runtime, w.Options),
		client.WithNewSpec(opts...))
	return c, err
}

// Tell logs what is known about the container of a failed test.
func (c *Container) Tell() {
	if r, err := c.RecordOf(); err == nil {
		r.Fingerprint = nil // long, and equal in most cases
		c.T.Logf("%s: record: %+v", c.ID(), r)
	}
	if out := c.Out.String(); out != "" {
		c.T.Logf("%s: output: %s", c.ID(), out)
	}
	logs, err := filepath.Glob(filepath.Join(c.Node.Dir, "state", "io.containerd.runtime.v2.task", c.Node.Namespace, c.ID(), "criu", "*.log"))
	if err != nil {
		return
	}
	for _, file := range logs {
		log, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(log)) {
			if strings.Contains(line, "Error") || strings.Contains(line, "Warn") {
				c.T.Logf("%s: %s", filepath.Base(file), strings.TrimSpace(line))
			}
		}
	}
	log, err := c.Node.Log()
	if err != nil {
		return
	}
	for line := range strings.Lines(log) {
		if strings.Contains(line, "id="+c.ID()+" ") || strings.Contains(line, "shim") && strings.Contains(line, c.ID()) {
			c.T.Log(strings.TrimSpace(line))
		}
	}
}

// Create makes a container with a task, up to the point where only Start is missing.
func Create(t *testing.T, n *harness.Node, w Want) *Container {
	t.Helper()
	c := New(t, n, w)
	if err := c.Create(w); err != nil {
		t.Fatal(err)
	}
	return c
}

// Create makes the container's task.
func (c *Container) Create(w Want, opts ...client.NewTaskOpts) error {
	ctx := Context(c.T)
	var stdin io.Reader
	if w.Stdin {
		stdin, c.Stdin = io.Pipe()
	}
	streams := []cio.Opt{cio.WithStreams(stdin, c.Out, c.Out), cio.WithFIFODir(c.Node.Dir)}
	if w.Terminal {
		streams = append(streams, cio.WithTerminal)
	}
	task, err := c.NewTask(ctx, cio.NewCreator(streams...), opts...)
	if err != nil {
		return err
	}
	c.Task = task
	// Before Start: no exit may be missed.
	exit, err := task.Wait(context.WithoutCancel(ctx))
	if err != nil {
		return err
	}
	c.Exit = exit
	return nil
}

// Start makes a container and starts its task.
func Start(t *testing.T, n *harness.Node, w Want) *Container {
	t.Helper()
	c := Create(t, n, w)
	if err := c.Task.Start(Context(t)); err != nil {
		t.Fatal(err)
	}
	return c
}

// Wait returns the exit status of the task.
func (c *Container) Wait() uint32 {
	c.T.Helper()
	select {
	case s := <-c.Exit:
		if err := s.Error(); err != nil {
			c.T.Fatal(err)
		}
		return s.ExitCode()
	case <-time.After(Deadline):
		c.T.Fatalf("%s: the task did not end within %s", c.ID(), Deadline)
		return 0
	}
}

// Kill sends a signal to the task's init.
func (c *Container) Kill(sig syscall.Signal, opts ...client.KillOpts) {
	c.T.Helper()
	if err := c.Task.Kill(Context(c.T), sig, opts...); err != nil {
		c.T.Fatal(err)
	}
}

// DeleteTask deletes the task and returns what its deletion said.
func (c *Container) DeleteTask() *client.ExitStatus {
	c.T.Helper()
	s, err := c.Task.Delete(Context(c.T))
	if err != nil {
		c.T.Fatal(err)
	}
	c.Task = nil
	return s
}

// Remove removes the container with everything of it. Nothing of it need exist.
func (c *Container) Remove() error {
	// The test's own context has ended when its clean-up runs.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.T.Context()), Deadline)
	defer cancel()
	task, err := c.Container.Task(ctx, nil)
	if err == nil {
		_, err = task.Delete(ctx, client.WithProcessKill)
	}
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("delete task %s: %w", c.ID(), err)
	}
	if c.Task != nil {
		c.Task.IO().Cancel()
		if err := c.Task.IO().Close(); err != nil {
			return err
		}
	}
	if c.Stdin != nil {
		c.Stdin.Close()
	}
	if err := c.Delete(ctx, client.WithSnapshotCleanup); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("delete container %s: %w", c.ID(), err)
	}
	return nil
}

// Pid is the init's.
func (c *Container) Pid() int { return int(c.Task.Pid()) }

// Status is what containerd says of the task.
func (c *Container) Status() client.ProcessStatus {
	c.T.Helper()
	s, err := c.Task.Status(Context(c.T))
	if err != nil {
		c.T.Fatal(err)
	}
	return s.Status
}

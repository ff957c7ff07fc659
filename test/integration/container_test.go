package integration

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
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

// deadline bounds everything that a test waits for.
const deadline = 30 * time.Second

// container is a container of a test, with its task.
type container struct {
	t    *testing.T
	node *harness.Node
	client.Container
	task client.Task
	// exit gets how the task ended.
	exit <-chan client.ExitStatus
	// out is what its streams, or its terminal, said.
	out *output
	// stdin is its input; nil without WithStdin.
	stdin io.WriteCloser
}

// want says what container to make.
type want struct {
	image       string
	args        []string
	annotations map[string]string
	terminal    bool
	stdin       bool
	id          string
	opts        []oci.SpecOpts
	// options are the runtime's; nil for none.
	options any
}

// probeOf wants a container that runs the probe.
func probeOf(opts ...oci.SpecOpts) want {
	return want{image: probeImage, args: []string{"/bin/probe"}, opts: opts}
}

// shell wants a container that runs a script in busybox.
func shell(script string, opts ...oci.SpecOpts) want {
	return want{image: busyboxImage, args: []string{"sh", "-c", script}, opts: opts}
}

// annotate adds an annotation of ours.
func (w want) annotate(key, value string) want {
	w.annotations = maps.Clone(w.annotations)
	if w.annotations == nil {
		w.annotations = map[string]string{}
	}
	w.annotations[spec.Prefix+key] = value
	return w
}

var serial atomic.Int64

// newContainer makes a container without a task. It is removed, with its task,
// when the test ends.
func newContainer(t *testing.T, n *harness.Node, w want) *container {
	t.Helper()
	c, err := makeContainer(t, n, w)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			c.tell()
		}
		if err := c.remove(); err != nil {
			left, lerr := n.Leftovers()
			t.Errorf("%v; on the node (%v):\n%s", err, lerr, left)
		}
	})
	return c
}

// makeContainer makes a container without a task, for the caller to remove.
func makeContainer(t *testing.T, n *harness.Node, w want) (*container, error) {
	ctx := testContext(t)
	image, err := n.Client().GetImage(ctx, w.image)
	if err != nil {
		return nil, err
	}
	id := w.id
	if id == "" {
		id = fmt.Sprintf("c%d", serial.Add(1))
	}
	opts := []oci.SpecOpts{oci.WithImageConfig(image), oci.WithEnv([]string{"SNAP_TEST=" + t.Name()})}
	if len(w.args) > 0 {
		opts = append(opts, oci.WithProcessArgs(w.args...))
	}
	if w.terminal {
		opts = append(opts, oci.WithTTY)
	}
	opts = append(opts, oci.WithAnnotations(w.annotations))
	opts = append(opts, w.opts...)
	c := &container{t: t, node: n, out: &output{}}
	c.Container, err = n.Client().NewContainer(ctx, id,
		client.WithImage(image),
		client.WithNewSnapshot(id, image),
		client.WithRuntime(harness.Runtime, w.options),
		client.WithNewSpec(opts...))
	return c, err
}

// tell logs what is known about the container of a failed test.
func (c *container) tell() {
	if r, err := c.recordOf(); err == nil {
		r.Fingerprint = nil // long, and equal in most cases
		c.t.Logf("%s: record: %+v", c.ID(), r)
	}
	if out := c.out.String(); out != "" {
		c.t.Logf("%s: output: %s", c.ID(), out)
	}
	logs, err := filepath.Glob(filepath.Join(c.node.Dir, "state", "io.containerd.runtime.v2.task", c.node.Namespace, c.ID(), "criu", "*.log"))
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
				c.t.Logf("%s: %s", filepath.Base(file), strings.TrimSpace(line))
			}
		}
	}
	log, err := c.node.Log()
	if err != nil {
		return
	}
	for line := range strings.Lines(log) {
		if strings.Contains(line, "id="+c.ID()+" ") || strings.Contains(line, "shim") && strings.Contains(line, c.ID()) {
			c.t.Log(strings.TrimSpace(line))
		}
	}
}

// create makes the task, up to the point where only Start is missing.
func create(t *testing.T, n *harness.Node, w want) *container {
	t.Helper()
	c := newContainer(t, n, w)
	if err := c.create(w); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *container) create(w want, opts ...client.NewTaskOpts) error {
	ctx := testContext(c.t)
	var stdin io.Reader
	if w.stdin {
		stdin, c.stdin = io.Pipe()
	}
	streams := []cio.Opt{cio.WithStreams(stdin, c.out, c.out), cio.WithFIFODir(c.node.Dir)}
	if w.terminal {
		streams = append(streams, cio.WithTerminal)
	}
	task, err := c.NewTask(ctx, cio.NewCreator(streams...), opts...)
	if err != nil {
		return err
	}
	c.task = task
	// Before Start: no exit may be missed.
	exit, err := task.Wait(context.WithoutCancel(ctx))
	if err != nil {
		return err
	}
	c.exit = exit
	return nil
}

// start makes a container and starts its task.
func start(t *testing.T, n *harness.Node, w want) *container {
	t.Helper()
	c := create(t, n, w)
	if err := c.task.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	return c
}

// wait returns the exit status of the task.
func (c *container) wait() uint32 {
	c.t.Helper()
	select {
	case s := <-c.exit:
		if err := s.Error(); err != nil {
			c.t.Fatal(err)
		}
		return s.ExitCode()
	case <-time.After(deadline):
		c.t.Fatalf("%s: the task did not end within %s", c.ID(), deadline)
		return 0
	}
}

// kill sends a signal to the task's init.
func (c *container) kill(sig syscall.Signal, opts ...client.KillOpts) {
	c.t.Helper()
	if err := c.task.Kill(testContext(c.t), sig, opts...); err != nil {
		c.t.Fatal(err)
	}
}

// delete deletes the task and returns what its deletion said.
func (c *container) delete() *client.ExitStatus {
	c.t.Helper()
	s, err := c.task.Delete(testContext(c.t))
	if err != nil {
		c.t.Fatal(err)
	}
	c.task = nil
	return s
}

// remove removes the container with everything of it. Nothing of it need exist.
func (c *container) remove() error {
	// The test's own context has ended when its clean-up runs.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.t.Context()), deadline)
	defer cancel()
	task, err := c.Task(ctx, nil)
	if err == nil {
		_, err = task.Delete(ctx, client.WithProcessKill)
	}
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("delete task %s: %w", c.ID(), err)
	}
	if c.task != nil {
		c.task.IO().Cancel()
		if err := c.task.IO().Close(); err != nil {
			return err
		}
	}
	if c.stdin != nil {
		c.stdin.Close()
	}
	if err := c.Delete(ctx, client.WithSnapshotCleanup); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("delete container %s: %w", c.ID(), err)
	}
	return nil
}

// pid is the init's.
func (c *container) pid() int { return int(c.task.Pid()) }

// status is what containerd says of the task.
func (c *container) status() client.ProcessStatus {
	c.t.Helper()
	s, err := c.task.Status(testContext(c.t))
	if err != nil {
		c.t.Fatal(err)
	}
	return s.Status
}

// testContext returns a context that ends with the test, and after the deadline.
func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	t.Cleanup(cancel)
	return ctx
}

// eventually calls check until it returns nil, and fails after the deadline.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	ctx := testContext(t)
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal(err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// output collects what a process writes.
type output struct {
	// mu guards b.
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// waitFor waits until the output holds text.
func (o *output) waitFor(t *testing.T, text string) {
	t.Helper()
	eventually(t, func() error {
		if out := o.String(); !strings.Contains(out, text) {
			return fmt.Errorf("the output lacks %q: %q", text, out)
		}
		return nil
	})
}

package parity

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// container is one of a scenario's.
type container struct {
	*side
	client.Container
	task client.Task
	exit <-chan client.ExitStatus
	// out and err are what its streams said; a terminal has only out.
	out, err *output
	stdin    io.WriteCloser
	// socket is the path of its shim's.
	socket string
}

// want says what container to make.
type want struct {
	id      string
	args    []string
	opts    []oci.SpecOpts
	task    []client.NewTaskOpts
	runtime any
	// io is for what is not the usual: FIFOs, with stdin held open.
	io       cio.Creator
	terminal bool
	new      []client.NewContainerOpts
}

func shell(script string, opts ...oci.SpecOpts) want {
	return want{args: []string{"sh", "-c", script}, opts: opts}
}

var serial atomic.Int64

// newContainer makes a container without a task. It is removed, with its task,
// when the test ends.
func (s *side) newContainer(w want) *container {
	s.Helper()
	ctx := s.context()
	image, err := node.Client().GetImage(ctx, busyboxImage)
	s.must(err)
	if w.id == "" {
		w.id = fmt.Sprintf("p%d", serial.Add(1))
	}
	opts := append([]oci.SpecOpts{oci.WithImageConfig(image)}, w.opts...)
	if w.args != nil {
		opts = append(opts, oci.WithProcessArgs(w.args...))
	}
	if w.terminal {
		opts = append(opts, oci.WithTTY)
	}
	c := &container{side: s, out: &output{}, err: &output{}}
	all := []client.NewContainerOpts{client.WithImage(image)}
	if w.new == nil {
		w.new = []client.NewContainerOpts{client.WithNewSnapshot(w.id, image)}
	}
	all = append(append(all, w.new...), client.WithRuntime(s.runtime, w.runtime), client.WithNewSpec(opts...))
	c.Container, err = node.Client().NewContainer(ctx, w.id, all...)
	s.must(err)
	s.Cleanup(func() {
		if err := c.remove(); err != nil {
			s.Error(err)
		}
	})
	return c
}

// create makes the task, up to the point where only Start is missing.
func (c *container) create(w want) error {
	ctx := c.context()
	if w.io == nil {
		var stdin io.Reader
		stdin, c.stdin = io.Pipe()
		streams := []cio.Opt{cio.WithStreams(stdin, c.out, c.err), cio.WithFIFODir(node.Dir)}
		if w.terminal {
			streams = append(streams, cio.WithTerminal)
		}
		w.io = cio.NewCreator(streams...)
	}
	opts := w.task
	if c.path != "" {
		opts = append(opts, client.WithRuntimePath(c.path))
	}
	task, err := c.NewTask(ctx, w.io, opts...)
	if err != nil {
		return err
	}
	c.task = task
	// Before Start: no exit may be missed.
	c.socket = strings.TrimPrefix(c.address(), "unix://")
	c.exit, err = task.Wait(context.WithoutCancel(ctx))
	return err
}

// created is a container with a task that waits for Start.
func (s *side) created(w want) *container {
	s.Helper()
	c := s.newContainer(w)
	s.must(c.create(w))
	return c
}

// started is one with a task that runs.
func (s *side) started(w want) *container {
	s.Helper()
	c := s.created(w)
	s.must(c.task.Start(s.context()))
	return c
}

// wait returns the exit status of the task.
func (c *container) wait() uint32 {
	c.Helper()
	select {
	case st := <-c.exit:
		c.must(st.Error())
		return st.ExitCode()
	case <-c.context().Done():
		c.Fatalf("%s: the task did not end within %s", c.runtime, deadline)
		return 0
	}
}

// output waits for the end of the task and returns what it said.
func (c *container) output() string {
	c.Helper()
	c.wait()
	c.task.IO().Wait()
	return c.out.String()
}

func (c *container) remove() error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.Context()), deadline)
	defer cancel()
	err := c.removeTask(ctx)
	for err != nil && strings.Contains(err.Error(), "ttrpc: closed") && ctx.Err() == nil {
		// Its shim has died, which containerd notices soon.
		time.Sleep(20 * time.Millisecond)
		err = c.removeTask(ctx)
	}
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("%s: delete task %s: %w", c.runtime, c.ID(), err)
	}
	if c.isStock() {
		// The stock shim leaves it at times: that of a pod, that of a shim that died.
		_ = os.Remove(c.socket)
	}
	if c.task != nil {
		c.task.IO().Cancel()
		c.task.IO().Close()
	}
	if c.stdin != nil {
		c.stdin.Close()
	}
	if err := c.Delete(ctx, client.WithSnapshotCleanup); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("%s: delete container %s: %w", c.runtime, c.ID(), err)
	}
	return nil
}

func (c *container) removeTask(ctx context.Context) error {
	// Without streams, which a removal has no use for.
	task, err := c.Task(ctx, nil)
	if err == nil {
		_, err = task.Delete(ctx, client.WithProcessKill)
	}
	if errdefs.IsNotFound(err) {
		// It may be that only containerd knows of a task: one that was deleted
		// past it.
		_, err = node.Client().TaskService().Delete(ctx, &tasks.DeleteTaskRequest{ContainerID: c.ID()})
		err = errgrpc.ToNative(err)
	}
	return err
}

// bundle is the container's.
func (c *container) bundle() string {
	return filepath.Join(node.Dir, "state", "io.containerd.runtime.v2.task", node.Namespace, c.ID())
}

// shim is a client of the container's shim itself, past containerd.
func (c *container) shim() taskapi.TTRPCTaskService {
	c.Helper()
	conn, err := net.Dial("unix", strings.TrimPrefix(c.address(), "unix://"))
	c.must(err)
	cl := ttrpc.NewClient(conn)
	c.Cleanup(func() { cl.Close() })
	return taskapi.NewTTRPCTaskClient(cl)
}

// address is that of the container's shim.
func (c *container) address() string {
	c.Helper()
	data, err := os.ReadFile(filepath.Join(c.bundle(), "bootstrap.json"))
	c.must(err)
	var params struct{ Address string }
	c.must(json.Unmarshal(data, &params))
	return params.Address
}

// shimContext is for calls of a shim.
func (s *side) shimContext() context.Context {
	return namespaces.WithNamespace(s.context(), node.Namespace)
}

// process is the container's, with other arguments.
func (c *container) process(args ...string) *specs.Process {
	c.Helper()
	sp, err := c.Spec(c.context())
	c.must(err)
	p := *sp.Process
	p.Args, p.Terminal = args, false
	return &p
}

// run runs a command in the container and returns its output and exit status.
func (c *container) run(args ...string) (string, uint32) {
	c.Helper()
	ctx := c.context()
	var out output
	stdin, w := io.Pipe()
	defer w.Close()
	e, err := c.task.Exec(ctx, fmt.Sprintf("e%d", serial.Add(1)), c.process(args...), cio.NewCreator(cio.WithStreams(stdin, &out, &out), cio.WithFIFODir(node.Dir)))
	c.must(err)
	exit, err := e.Wait(ctx)
	c.must(err)
	c.must(e.Start(ctx))
	st := <-exit
	c.must(st.Error())
	e.IO().Wait()
	_, err = e.Delete(ctx)
	c.must(err)
	return out.String(), st.ExitCode()
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
func (c *container) waitFor(o *output, text string) {
	c.Helper()
	c.eventually(func() error {
		if out := o.String(); !strings.Contains(out, text) {
			return fmt.Errorf("the output lacks %q: %q", text, out)
		}
		return nil
	})
}

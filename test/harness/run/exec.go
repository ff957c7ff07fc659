package run

import (
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
)

// Execution is a process exec'd by a test.
type Execution struct {
	client.Process
	Out   *Output
	Stdin io.WriteCloser
	Exit  <-chan client.ExitStatus
}

// NewExec announces a process in a container.
func (c *Container) NewExec(terminal bool, args ...string) *Execution {
	c.T.Helper()
	ctx := Context(c.T)
	sp, err := c.Spec(ctx)
	if err != nil {
		c.T.Fatal(err)
	}
	p := *sp.Process
	p.Args, p.Terminal = args, terminal
	e := &Execution{Out: &Output{}}
	var stdin io.Reader
	stdin, e.Stdin = io.Pipe()
	streams := []cio.Opt{cio.WithStreams(stdin, e.Out, e.Out), cio.WithFIFODir(c.Node.Dir)}
	if terminal {
		streams = append(streams, cio.WithTerminal)
	}
	if e.Process, err = c.Task.Exec(ctx, fmt.Sprintf("e%d", Serial()), &p, cio.NewCreator(streams...)); err != nil {
		c.T.Fatal(err)
	}
	if e.Exit, err = e.Wait(ctx); err != nil {
		c.T.Fatal(err)
	}
	c.T.Cleanup(func() { e.Stdin.Close() })
	return e
}

// Exec runs a command in the container and returns its output and exit status.
func (c *Container) Exec(args ...string) (string, uint32) {
	c.T.Helper()
	ctx := Context(c.T)
	sp, err := c.Spec(ctx)
	if err != nil {
		c.T.Fatal(err)
	}
	p := *sp.Process
	p.Args, p.Terminal = args, false
	var out Output
	e, err := c.Task.Exec(ctx, fmt.Sprintf("e%d", Serial()), &p, cio.NewCreator(cio.WithStreams(nil, &out, &out), cio.WithFIFODir(c.Node.Dir)))
	if err != nil {
		c.T.Fatal(err)
	}
	exit, err := e.Wait(ctx)
	if err != nil {
		c.T.Fatal(err)
	}
	if err := e.Start(ctx); err != nil {
		c.T.Fatal(err)
	}
	s := <-exit
	if err := s.Error(); err != nil {
		c.T.Fatal(err)
	}
	e.IO().Wait()
	if _, err := e.Delete(ctx); err != nil {
		c.T.Fatal(err)
	}
	return out.String(), s.ExitCode()
}

// MustExec runs a command that must succeed.
func (c *Container) MustExec(args ...string) string {
	c.T.Helper()
	out, code := c.Exec(args...)
	if code != 0 {
		c.T.Fatalf("%s: exec %q: exit status %d: %s", c.ID(), args, code, out)
	}
	return out
}

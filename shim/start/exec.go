package start

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/shim/libct"
	"github.com/containerd-snap/snap/shim/lifecycle"
	"github.com/containerd-snap/snap/shim/stdio"
)

var _ lifecycle.Process = (*execProcess)(nil)

// execProcess is a process exec'd into a container.
type execProcess struct {
	id string
	p  *libct.Process
	io *stdio.Session
}

// Exec starts a process in the container.
func (i *Init) Exec(ctx context.Context, cfg lifecycle.ExecConfig) (_ lifecycle.Process, retErr error) {
	l, err := i.mustLive()
	if err != nil {
		return nil, err
	}
	s, err := stdio.Open(cfg.ID, i.starter.Namespace, stdio.Config(cfg.Stdio), i.req.Options.IOUID, i.req.Options.IOGID)
	if err != nil {
		return nil, invalid(err)
	}
	defer func() {
		if retErr != nil {
			retErr = errors.Join(retErr, s.Close())
		}
	}()
	if err := s.NullStreams(); err != nil {
		return nil, err
	}
	if err := s.Start(ctx); err != nil {
		return nil, streamsError(err)
	}
	spec := *cfg.Spec
	spec.Terminal = cfg.Stdio.Terminal
	f := s.ProcessFiles()
	p, err := l.c.Exec(ctx, &spec, libct.Files{Stdin: f[0], Stdout: f[1], Stderr: f[2], Console: s.ConsoleSocket()})
	if err != nil {
		return nil, err
	}
	s.CloseProcessFiles()
	if cfg.Stdio.Terminal {
		if err := s.ReceiveConsole(ctx); err != nil {
			_ = p.Signal(unix.SIGKILL)
			_, werr := p.Wait()
			return nil, fmt.Errorf("exec %s: %w", cfg.ID, errors.Join(err, werr))
		}
	}
	return &execProcess{id: cfg.ID, p: p, io: s}, nil
}

func (e *execProcess) PID() int { return e.p.PID() }

func (e *execProcess) Wait() lifecycle.Exit {
	status, err := e.p.Wait()
	if err != nil {
		log.L.WithError(err).WithField("exec_id", e.id).Error("wait for process")
	}
	e.io.Exited()
	return lifecycle.Exit{PID: e.p.PID(), Status: status, At: time.Now()}
}

func (e *execProcess) Signal(_ context.Context, sig unix.Signal) error { return e.p.Signal(sig) }

func (e *execProcess) Resize(width, height uint32) error {
	return e.io.Resize(uint16(width), uint16(height))
}

func (e *execProcess) CloseStdin() error { return e.io.CloseStdin() }

func (e *execProcess) Close(ctx context.Context) error { return closeStreams(ctx, e.io, e.id) }

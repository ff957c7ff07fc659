package stdio

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Start opens what the Config names and, without a terminal, starts to copy.
// It waits, for 30 s at most, until each output FIFO has a reader and a logging
// program is ready. After an error only Close is left to call.
func (s *Session) Start(ctx context.Context) error {
	s.mu.Lock()
	again := s.started
	s.started = true
	s.mu.Unlock()
	if again {
		return fmt.Errorf("start the streams of %s: they were started before", s.id)
	}
	ctx, cancel := s.bound(ctx)
	defer cancel()
	err := s.openInput()
	if err == nil {
		err = s.openOutputs(ctx)
	}
	if err == nil && !s.plan.terminal {
		err = s.copyPipes()
	}
	if err != nil {
		return fmt.Errorf("start the streams of %s: %w", s.id, err)
	}
	return nil
}

// bound returns ctx with startTimeout, canceled by Close.
func (s *Session) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	ctx, cancelCause := until(ctx, s.quit)
	return ctx, func() { cancelCause(nil); cancel() }
}

// until returns ctx, canceled with errClosed when quit is closed.
func until(ctx context.Context, quit <-chan struct{}) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-quit:
			cancel(errClosed)
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// errClosed is returned by what Close interrupts.
var errClosed = fmt.Errorf("the session was closed: %w", os.ErrClosed)

// own hands c to Close, or closes it if Close was called already.
func (s *Session) own(c io.Closer) error {
	s.mu.Lock()
	closed := s.closed
	if !closed {
		s.owned = append(s.owned, c)
	}
	s.mu.Unlock()
	if closed {
		return errors.Join(errClosed, ignoreClosed(c.Close()))
	}
	return nil
}

// spawn runs f until Close waits for it.
func (s *Session) spawn(f func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errClosed
	}
	s.running.Go(f)
	return nil
}

// openInput opens the stdin FIFO. Neither end waits for another: the read end
// is opened first and without blocking, and then it is the partner of hold.
func (s *Session) openInput() error {
	if s.plan.stdin == "" {
		return nil
	}
	input, err := os.OpenFile(s.plan.stdin, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open stdin: %w", err)
	}
	if err := s.own(input); err != nil {
		return err
	}
	info, err := input.Stat()
	if err != nil {
		return fmt.Errorf("open stdin: %w", err)
	}
	var hold *os.File
	if info.Mode()&os.ModeNamedPipe != 0 {
		if hold, err = os.OpenFile(s.plan.stdin, os.O_WRONLY|unix.O_NONBLOCK, 0); err != nil {
			return fmt.Errorf("hold stdin open: %w", err)
		}
		if err := s.own(hold); err != nil {
			return err
		}
	}
	s.mu.Lock()
	s.input = input
	closed := s.stdinClosed
	if !closed {
		s.hold = hold
	}
	s.mu.Unlock()
	if closed && hold != nil {
		return hold.Close()
	}
	return nil
}

// openOutputs opens the sinks of stdout and stderr, or starts the logging program.
func (s *Session) openOutputs(ctx context.Context) error {
	if s.plan.stdout.kind == kindLogger {
		return s.openLogger(ctx)
	}
	if s.plan.joined || s.plan.terminal {
		users := int32(1)
		if s.plan.joined {
			users = 2
		}
		o, err := s.openOutlet(ctx, s.plan.stdout, users)
		if err != nil {
			return err
		}
		s.setOutlets(o, o)
		return nil
	}
	// Both at once: the reader may open them in either order, and wait for each.
	var stdout *outlet
	var stdoutErr error
	done := make(chan struct{})
	go func() {
		defer close(done)
		stdout, stdoutErr = s.openOutlet(ctx, s.plan.stdout, 1)
	}()
	stderr, err := s.openOutlet(ctx, s.plan.stderr, 1)
	<-done
	if err := errors.Join(stdoutErr, err); err != nil {
		return err
	}
	s.setOutlets(stdout, stderr)
	return nil
}

func (s *Session) openOutlet(ctx context.Context, t target, users int32) (*outlet, error) {
	k, err := openSink(ctx, t)
	if err != nil {
		return nil, err
	}
	return newOutlet(t, k, users), s.own(k)
}

func (s *Session) setOutlets(stdout, stderr *outlet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for stream, o := range []*outlet{stdout, stderr} {
		if o != nil && o.tap == nil && s.tap != nil {
			o.tap = func(p []byte) { s.tap(stream, p) }
		}
	}
	s.outlets = [2]*outlet{stdout, stderr}
}

// openLogger starts the logging program: on the pipes of the process, or behind
// its terminal with a pipe for stdout and an ended one for stderr.
func (s *Session) openLogger(ctx context.Context) error {
	stdout, stderr := s.near[1], s.near[2]
	if s.plan.terminal {
		r, w, err := newPipe(endWrite, os.Geteuid(), os.Getegid())
		if err != nil {
			return err
		}
		defer r.Close()
		if err := s.own(w); err != nil {
			return err
		}
		errR, errW, err := newPipe(endNone, os.Geteuid(), os.Getegid())
		if err != nil {
			return err
		}
		defer errR.Close()
		errW.Close()
		stdout, stderr = r, errR
		s.setOutlets(newOutlet(s.plan.stdout, fileSink{w}, 1), nil)
	}
	l, err := startLogger(ctx, s.plan.stdout, s.id, s.namespace, stdout, stderr)
	// The program has its own ends; with ours left open the process would not notice if it dies.
	stdout.Close()
	stderr.Close()
	if err != nil {
		return err
	}
	s.mu.Lock()
	closed := s.closed
	s.logger = l
	s.mu.Unlock()
	if closed {
		return errors.Join(errClosed, l.stop())
	}
	return nil
}

// copyPipes starts to copy between the process's pipes and what was opened.
func (s *Session) copyPipes() error {
	if s.input != nil {
		err := s.spawn(func() {
			feed(s.near[0], s.input)
			s.near[0].Close()
			s.input.Close()
		})
		if err != nil {
			return err
		}
	}
	for i, stream := range []string{"stdout", "stderr"} {
		if o := s.outlets[i]; o != nil {
			if err := s.transfer(newTransfer(stream, s.near[i+1], o)); err != nil {
				return err
			}
		}
	}
	return nil
}

// transfer starts t.
func (s *Session) transfer(t *transfer) error {
	if err := s.spawn(func() { t.run(s.quit) }); err != nil {
		return err
	}
	s.mu.Lock()
	s.transfers = append(s.transfers, t)
	s.mu.Unlock()
	return nil
}

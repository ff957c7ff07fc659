// Package stdio moves bytes between the standard streams of a process and what
// containerd names for them: FIFOs, files, a logging program, or nothing.
//
// A container's init always gets pipes, or a pseudo-terminal: a restore re-attaches
// only pipes, so a checkpoint of a container without streams fits one that has
// them, and the other way round. Other processes get /dev/null for what is named
// nothing. The one exception to copying is a logging
// program without a terminal: it reads the pipes of the process itself.
//
// The package starts no process but the logging program, and knows no state of
// the task: its user says when the process has exited, and how long a last
// output may take.
//
// Locks: Session.mu guards the fields of a Session and is never held across
// I/O; outlet.mu is held across one write and keeps two streams that share a
// target from tearing each other's writes. They are never held together.
package stdio

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// startTimeout bounds the waits for a FIFO's reader, a logging program and
	// a terminal, as in the stock shim.
	startTimeout = 30 * time.Second
	// closeTimeout bounds the wait for copies after their files were closed.
	// Only a write to a file system that hangs can take that long.
	closeTimeout = 2 * time.Second
)

// Session is the standard streams of one process. The calls are, in this order:
//
//	Open, NullStreams, Start        before the process is started or restored
//	ProcessFiles or ConsoleSocket   for starting it
//	RenewConsole                    before a second attempt, as after a failed restore
//	CloseProcessFiles               when it was started
//	ReceiveConsole                  if it has a terminal
//	Resize, CloseStdin              while it runs
//	Exited                          as soon as it is known to have exited
//	Drain, Close                    before it is deleted
//
// All methods may be called by several goroutines at once. Close may be called
// at any time, and must be called.
type Session struct {
	id, namespace string
	plan          plan
	// tap sees all output; nil for nobody. Tap sets it.
	tap func(stream int, p []byte)
	// quit is closed by Close and ends every wait.
	quit chan struct{}
	// running counts the copies. It grows only under mu and before closed is set.
	running   sync.WaitGroup
	closeOnce sync.Once
	closeErr  error

	// near are our ends of the process's pipes. near[1] and near[2] are meant for
	// the logging program where it reads from the process itself. Open sets them.
	near [3]*os.File
	// input is the stdin FIFO, or nil. Start sets it.
	input *os.File

	mu sync.Mutex
	// process are the process's ends of its pipes.
	process [3]*os.File
	// console and consoleChild are our end and the process's of its console socket.
	console, consoleChild *os.File
	// These are set by the methods that they are named after.
	started, received, stdinClosed, exited, closed bool
	// hold is the write end of input, which keeps it from ending before
	// CloseStdin, or nil.
	hold *os.File
	// outlets are those of stdout and stderr, or nil.
	outlets   [2]*outlet
	transfers []*transfer
	logger    *logger
	terminal  *terminal
	size      *unix.Winsize
	// owned is closed by Close.
	owned []io.Closer
}

// Open prepares the streams that c names for a process. The pipes belong to
// uid and gid. It opens nothing that c names and does not wait.
//
// id and namespace are what a logging program is told. An error wraps
// errdefs.ErrInvalidArgument if c cannot be served.
func Open(id, namespace string, c Config, uid, gid int) (_ *Session, err error) {
	p, err := c.plan()
	if err != nil {
		return nil, err
	}
	s := &Session{id: id, namespace: namespace, plan: p, quit: make(chan struct{})}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if p.terminal {
		if err := s.RenewConsole(); err != nil {
			return nil, err
		}
		return s, nil
	}
	for i := range s.process {
		if err := s.openPipe(i, uid, gid); err != nil {
			return nil, fmt.Errorf("open the streams of %s: %w", id, err)
		}
	}
	return s, nil
}

// openPipe makes the pipe of descriptor i.
func (s *Session) openPipe(i, uid, gid int) error {
	ours := endRead
	switch {
	case i == 0:
		ours = endWrite
	case s.plan.stdout.kind == kindLogger:
		ours = endNone
	}
	r, w, err := newPipe(ours, uid, gid)
	if err != nil {
		return err
	}
	s.process[i], s.near[i] = w, r
	if i == 0 {
		s.process[i], s.near[i] = r, w
		if s.plan.stdin == "" {
			w.Close()
		}
	}
	s.owned = append(s.owned, s.near[i])
	return nil
}

// NullStreams gives the process /dev/null for what is named nothing, instead of a
// pipe: what is not part of a checkpoint need not be re-attached by a restore, and
// there are programs that read their input if it is a pipe. Call it after Open.
func (s *Session) NullStreams() error {
	if s.plan.terminal {
		return nil
	}
	none := [3]bool{s.plan.stdin == "", s.plan.stdout.kind == kindNone, s.plan.stderr.kind == kindNone && !s.plan.joined}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, null := range none {
		if !null || s.process[i] == nil {
			continue
		}
		f, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			return fmt.Errorf("open the streams of %s: %w", s.id, err)
		}
		s.process[i].Close()
		s.process[i] = f
	}
	return nil
}

// Tap lets f see all that the process prints, on stdout (0) or stderr (1), before it is
// written where it goes. It must be quick, and called before Start. Passed says
// whether anything passes here at all: a logging program reads from the process itself.
func (s *Session) Tap(f func(stream int, p []byte)) (passes bool) {
	s.tap = f
	return s.plan.terminal || s.plan.stdout.kind != kindLogger
}

// ProcessFiles returns the files for the process's descriptors 0, 1 and 2. They
// are valid until CloseProcessFiles. With a terminal all are nil: take care not
// to put a nil *os.File into an io.Reader or io.Writer.
func (s *Session) ProcessFiles() [3]*os.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.process
}

// ConsoleSocket returns the socket through which the process sends its
// terminal, valid until CloseProcessFiles, or nil without a terminal.
func (s *Session) ConsoleSocket() *os.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.consoleChild
}

// CloseProcessFiles closes what ProcessFiles and ConsoleSocket return. Until
// then the end of the process is not the end of its output.
func (s *Session) CloseProcessFiles() {
	s.mu.Lock()
	files := append(s.process[:], s.consoleChild)
	s.process, s.consoleChild = [3]*os.File{}, nil
	s.mu.Unlock()
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

// CloseStdin lets the process see the end of its input when it has read what is
// in the FIFO and no other writer is left. A terminal is hung up then.
func (s *Session) CloseStdin() error {
	s.mu.Lock()
	hold := s.hold
	s.hold, s.stdinClosed = nil, true
	s.mu.Unlock()
	if hold == nil {
		return nil
	}
	if err := ignoreClosed(hold.Close()); err != nil {
		return fmt.Errorf("close stdin of %s: %w", s.id, err)
	}
	return nil
}

// Exited says that the process has exited. It does not wait: what the process
// wrote before is still copied, for as long as that takes, and then the reader
// sees the end. A terminal's output ends only through this call.
func (s *Session) Exited() {
	s.CloseProcessFiles()
	s.mu.Lock()
	s.exited = true
	t := s.terminal
	s.mu.Unlock()
	if t != nil {
		t.hangUp()
	}
}

// Drain waits, after the exit of the process, until all of its output was
// copied and a logging program has ended. When ctx is done first, the output
// that is left is given up, and the error says whose.
//
// The exit must not wait for Drain: it takes until the deadline where a reader
// is stuck, or where a child of an exec'd process still has its stdout. The
// error also names output that was lost while the process ran.
func (s *Session) Drain(ctx context.Context) error {
	s.Exited()
	s.mu.Lock()
	transfers, l := s.transfers, s.logger
	s.mu.Unlock()
	var errs []error
	for _, t := range transfers {
		if t.dst.target.kind != kindNone {
			errs = append(errs, t.wait(ctx))
		}
	}
	if l != nil {
		errs = append(errs, l.wait(ctx))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("drain the output of %s: %w", s.id, err)
	}
	return nil
}

// Close closes every file and ends every copy at once. It takes longer only if
// a logging program still runs: it gets SIGTERM and, 12 s later, SIGKILL. A
// second call waits for the first and returns the same.
func (s *Session) Close() error {
	s.closeOnce.Do(func() {
		close(s.quit)
		s.mu.Lock()
		s.closed = true
		owned, l := s.owned, s.logger
		s.mu.Unlock()
		s.CloseProcessFiles()
		var errs []error
		for _, c := range owned {
			errs = append(errs, ignoreClosed(c.Close()))
		}
		errs = append(errs, s.waitCopies())
		if l != nil {
			errs = append(errs, l.stop())
		}
		if err := errors.Join(errs...); err != nil {
			s.closeErr = fmt.Errorf("close the streams of %s: %w", s.id, err)
		}
	})
	return s.closeErr
}

func (s *Session) waitCopies() error {
	done := make(chan struct{})
	go func() {
		s.running.Wait()
		close(done)
	}()
	timer := time.NewTimer(closeTimeout)
	defer timer.Stop()
	select {
	case <-done:
		return nil
	case <-timer.C:
		return fmt.Errorf("end the copies: one hangs in a write to %s or %s: look at that file system", s.plan.stdout, s.plan.stderr)
	}
}

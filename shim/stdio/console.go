package stdio

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// RenewConsole replaces the console socket before another attempt to start the
// process: a failed one may have sent its terminal already, and that is dead.
// Without a terminal it does nothing; after ReceiveConsole it is an error.
func (s *Session) RenewConsole() error {
	if !s.plan.terminal {
		return nil
	}
	ours, theirs, err := newSocketPair()
	if err != nil {
		return fmt.Errorf("open the terminal of %s: %w", s.id, err)
	}
	s.mu.Lock()
	if s.received || s.closed {
		s.mu.Unlock()
		ours.Close()
		theirs.Close()
		return fmt.Errorf("open the terminal of %s: it was received or closed before", s.id)
	}
	old := [2]*os.File{s.console, s.consoleChild}
	s.console, s.consoleChild = ours, theirs
	s.owned = append(s.owned, ours)
	s.mu.Unlock()
	for _, f := range old {
		if f != nil {
			f.Close()
		}
	}
	return nil
}

// ReceiveConsole receives the terminal of the started process, for 30 s at
// most, and starts to copy. Start must have been called. It fails at once if
// the process ends, and CloseProcessFiles was called, before the terminal came.
func (s *Session) ReceiveConsole(ctx context.Context) error {
	if !s.plan.terminal {
		return fmt.Errorf("receive the terminal of %s: it was opened without one", s.id)
	}
	s.mu.Lock()
	ready := s.outlets[0] != nil && !s.received
	s.received = s.received || ready
	s.mu.Unlock()
	if !ready {
		return fmt.Errorf("receive the terminal of %s: call it once, after Start", s.id)
	}
	ctx, cancel := s.bound(ctx)
	defer cancel()
	t, err := s.receiveTerminal(ctx)
	if err == nil {
		err = s.copyTerminal(t)
	}
	if err != nil {
		return fmt.Errorf("receive the terminal of %s: %w", s.id, err)
	}
	return nil
}

func (s *Session) receiveTerminal(ctx context.Context) (*terminal, error) {
	s.mu.Lock()
	socket := s.console
	s.mu.Unlock()
	file, err := receiveFile(ctx, socket)
	if err != nil {
		return nil, err
	}
	socket.Close()
	t, err := newTerminal(file)
	if err != nil {
		return nil, err
	}
	if err := s.own(t); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.terminal = t
	size, exited := s.size, s.exited
	s.mu.Unlock()
	if size != nil {
		err = t.resize(*size)
	}
	if exited {
		t.hangUp()
	}
	return t, err
}

// copyTerminal starts to copy between the terminal and what was opened.
func (s *Session) copyTerminal(t *terminal) error {
	output := newTransfer("the terminal", t, s.outlets[0])
	if err := s.transfer(output); err != nil || s.input == nil {
		return err
	}
	return s.spawn(func() {
		feed(t, s.input)
		s.input.Close()
		// The end of the input of a terminal is the end of the line. What was
		// written to it before is read first.
		t.hangUp()
		select {
		case <-output.copied:
		case <-s.quit:
		}
		t.Close()
	})
}

// Resize sets the size of the terminal in characters. Before ReceiveConsole it
// is kept for it; without a terminal it does nothing, as in the stock shim.
func (s *Session) Resize(width, height uint16) error {
	if !s.plan.terminal {
		return nil
	}
	size := unix.Winsize{Row: height, Col: width}
	s.mu.Lock()
	s.size = &size
	t := s.terminal
	s.mu.Unlock()
	if t == nil {
		return nil
	}
	if err := t.resize(size); err != nil {
		return fmt.Errorf("resize the terminal of %s to %dx%d: %w", s.id, width, height, err)
	}
	return nil
}

// maxName is how long the name that comes with a descriptor can be, in bytes.
const maxName = 4096

// receiveFile receives one descriptor from socket.
func receiveFile(ctx context.Context, socket *os.File) (*os.File, error) {
	defer interrupt(ctx, socket)()
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil, err
	}
	name := make([]byte, maxName)
	// Room for more than one, so that a surplus is seen instead of being cut off.
	oob := make([]byte, unix.CmsgSpace(4*4))
	var n, oobn int
	var recvErr error
	err = raw.Read(func(fd uintptr) bool {
		for {
			n, oobn, _, _, recvErr = unix.Recvmsg(int(fd), name, oob, unix.MSG_CMSG_CLOEXEC)
			if !errors.Is(recvErr, unix.EINTR) {
				return !errors.Is(recvErr, unix.EAGAIN)
			}
		}
	})
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, err
	case recvErr != nil:
		return nil, os.NewSyscallError("recvmsg", recvErr)
	case n == 0 && oobn == 0:
		return nil, errors.New("the process ended before it sent its terminal")
	}
	fds, err := parseRights(oob[:oobn])
	if err != nil {
		return nil, err
	}
	if len(fds) != 1 {
		for _, fd := range fds {
			unix.Close(fd)
		}
		return nil, fmt.Errorf("the process sent %d descriptors instead of its terminal", len(fds))
	}
	// The open file is shared with no process that outlives the sending.
	if err := unix.SetNonblock(fds[0], true); err != nil {
		unix.Close(fds[0])
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fds[0]), string(name[:n])), nil
}

func parseRights(oob []byte) (fds []int, err error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, os.NewSyscallError("parse control message", err)
	}
	for i := range messages {
		got, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue // another kind of message
		}
		fds = append(fds, got...)
	}
	return fds, nil
}

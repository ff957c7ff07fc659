package stdio

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is the master side of a process's pseudo-terminal.
//
// While the process lives, its terminal may be closed by everyone and opened
// again, so EIO is no end: Read and Write then wait. What Read ends on is the
// call of hangUp, and everything that was written before it is read first.
type terminal struct {
	file *os.File
	raw  syscall.RawConn
	// over is set by hangUp.
	over atomic.Bool
}

// newTerminal takes over the non-blocking file, which it closes if it is no terminal.
func newTerminal(file *os.File) (*terminal, error) {
	raw, err := file.SyscallConn()
	if err == nil {
		err = file.SetReadDeadline(time.Time{}) // fails if hangUp could not interrupt a Read
	}
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			if _, e := unix.IoctlGetWinsize(int(fd), unix.TIOCGWINSZ); e != nil {
				err = os.NewSyscallError("TIOCGWINSZ", e)
			}
		})
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("use %s as a terminal: %w", file.Name(), err)
	}
	return &terminal{file: file, raw: raw}, nil
}

// Read reads what the process writes. It returns io.EOF after hangUp.
func (t *terminal) Read(p []byte) (n int, err error) {
	for !t.over.Load() {
		var readErr error
		err := t.raw.Read(func(fd uintptr) bool {
			n, readErr = readFd(fd, p)
			// The poller is edge-triggered: after EIO it waits for somebody
			// to open the terminal and write, and does not spin.
			return !again(readErr)
		})
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			continue // hangUp
		case err != nil:
			return 0, err
		case readErr != nil:
			return 0, os.NewSyscallError("read", readErr)
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
	return t.readRest(p)
}

// readRest reads without waiting. The kernel hands everything over that was
// written before, even if it was still on its way, before it answers EAGAIN or EIO.
func (t *terminal) readRest(p []byte) (n int, err error) {
	var readErr error
	err = t.raw.Control(func(fd uintptr) { n, readErr = readFd(fd, p) })
	switch {
	case err != nil:
		return 0, err
	case again(readErr) || n == 0:
		return 0, io.EOF
	case readErr != nil:
		return 0, os.NewSyscallError("read", readErr)
	default:
		return n, nil
	}
}

// Write writes p as if it were typed.
func (t *terminal) Write(p []byte) (written int, err error) {
	var writeErr error
	err = t.raw.Write(func(fd uintptr) bool {
		for written < len(p) {
			n, e := unix.Write(int(fd), p[written:])
			switch {
			case n > 0:
				written += n
			case errors.Is(e, unix.EINTR):
			case e == nil || again(e):
				return false
			default:
				writeErr = os.NewSyscallError("write", e)
				return true
			}
		}
		return true
	})
	return written, errors.Join(err, writeErr)
}

// readFd reads once.
func readFd(fd uintptr, p []byte) (int, error) {
	for {
		n, err := unix.Read(int(fd), p)
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// again says whether err means that there is nothing now, but may be later.
func again(err error) bool {
	return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EIO)
}

// hangUp lets Read return io.EOF when it has read what is there.
func (t *terminal) hangUp() {
	t.over.Store(true)
	t.file.SetReadDeadline(time.Unix(1, 0))
}

// resize sets the size in characters.
func (t *terminal) resize(size unix.Winsize) error {
	var ioctlErr error
	err := t.raw.Control(func(fd uintptr) {
		ioctlErr = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &size)
	})
	if err != nil {
		return os.ErrClosed // the only cause, which the poller names differently
	}
	return os.NewSyscallError("TIOCSWINSZ", ioctlErr)
}

// Close hangs the line up: processes that still have the terminal get SIGHUP.
func (t *terminal) Close() error { return t.file.Close() }

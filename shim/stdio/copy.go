package stdio

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
)

// bufferSize is half of a pipe's usual capacity, in bytes.
const bufferSize = 32 << 10

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// transfer copies one output of the process into an outlet.
type transfer struct {
	stream string
	src    io.ReadCloser
	dst    *outlet
	// copied is closed when everything was written, or the copy was given up.
	copied chan struct{}
	// err is the first error; it may be read after copied is closed.
	err error
}

func newTransfer(stream string, src io.ReadCloser, dst *outlet) *transfer {
	return &transfer{stream: stream, src: src, dst: dst, copied: make(chan struct{})}
}

// run copies until the process's end of the stream is closed. An outlet that
// fails does not stop it: the process must not stop on a full disk. After the
// end it may keep the outlet for a reader, until quit is closed.
func (t *transfer) run(quit <-chan struct{}) {
	lost, err := pump(t.dst, t.src)
	if err != nil {
		t.err = fmt.Errorf("copy %s to %s: %w", t.stream, t.dst.target, err)
		if lost > 0 {
			t.err = fmt.Errorf("%w (%d bytes lost)", t.err, lost)
		}
	}
	close(t.copied)
	t.dst.leave(quit)
}

// wait returns when everything was copied. When ctx is done first, it gives the
// copy up, so that run returns.
func (t *transfer) wait(ctx context.Context) error {
	select {
	case <-t.copied:
		return t.err
	case <-ctx.Done():
	}
	select {
	case <-t.copied: // both were ready
		return t.err
	default:
	}
	t.src.Close()
	t.dst.Close()
	return fmt.Errorf("copy %s to %s: gave up waiting for its reader, or for the last process that writes to it: %w",
		t.stream, t.dst.target, context.Cause(ctx))
}

// pump copies src to dst until src ends. After an error of dst it goes on
// reading. It returns how many bytes dst did not take, and the first error.
func pump(dst io.Writer, src io.Reader) (lost int64, err error) {
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	for {
		n, readErr := src.Read(buf[:])
		if n > 0 {
			written, writeErr := dst.Write(buf[:n])
			lost += int64(n - written)
			if err == nil {
				err = writeErr
			}
		}
		if errors.Is(readErr, io.EOF) {
			return lost, err
		}
		if readErr != nil {
			if err == nil {
				err = readErr
			}
			return lost, err
		}
	}
}

// feed copies src to dst until one of them ends. Input that nobody reads any
// more is no error.
func feed(dst io.Writer, src io.Reader) {
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	// The wrappers keep io.CopyBuffer from choosing a way that ignores the buffer.
	_, _ = io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, buf[:])
}

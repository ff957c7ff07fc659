package stdio

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/containerd/fifo"
	"golang.org/x/sys/unix"
)

// sink is what an output is written to. Close interrupts a Write.
type sink interface {
	io.WriteCloser
	// finish is called once, after the last Write. It can wait for a reader of
	// what was written, until quit is closed.
	finish(quit <-chan struct{})
}

// outlet is a sink that stdout and stderr may share. A write of one of them is
// not torn by the other.
type outlet struct {
	target target
	sink   sink
	// tap, if set, sees everything that is written.
	tap func(p []byte)
	// users counts the streams that still write.
	users atomic.Int32
	mu    sync.Mutex
}

func newOutlet(t target, s sink, users int32) *outlet {
	o := &outlet{target: t, sink: s}
	o.users.Store(users)
	return o
}

func (o *outlet) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.tap != nil {
		o.tap(p)
	}
	return o.sink.Write(p)
}

// leave says that one stream has ended; with the last one the sink is finished and closed.
func (o *outlet) leave(quit <-chan struct{}) {
	if o.users.Add(-1) == 0 {
		o.sink.finish(quit)
		o.sink.Close()
	}
}

// Close closes the sink, whoever uses it.
func (o *outlet) Close() error { return o.sink.Close() }

// openSink opens t, which is no logging program.
func openSink(ctx context.Context, t target) (sink, error) {
	switch t.kind {
	case kindPath:
		if ok, err := fifo.IsFifo(t.path); err != nil {
			return nil, fmt.Errorf("open %s: %w", t.path, err)
		} else if ok {
			return openFIFOSink(ctx, t.path)
		}
		return openFileSink(t.path, 0)
	case kindFile:
		if err := os.MkdirAll(filepath.Dir(t.path), 0o755); err != nil {
			return nil, fmt.Errorf("create the directory of log file %s: %w", t.path, err)
		}
		return openFileSink(t.path, os.O_CREATE)
	default:
		return discard{}, nil
	}
}

// discard throws output away.
type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) Close() error                { return nil }
func (discard) finish(<-chan struct{})      {}

// fileSink is a file, a device, or a pipe to a logging program.
type fileSink struct{ *os.File }

func (fileSink) finish(<-chan struct{}) {}

func openFileSink(path string, flags int) (sink, error) {
	// O_NONBLOCK keeps the open itself from waiting where path is a device.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|unix.O_NONBLOCK|unix.O_NOCTTY|flags, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open a log: %w", err)
	}
	return fileSink{f}, nil
}

// fifoSink is a FIFO. It holds a read end too, so that the reader may go away
// and another one come: until then writes fill the FIFO and wait, and never
// fail with EPIPE.
type fifoSink struct {
	path string
	w    io.WriteCloser
	r    *os.File
	once sync.Once
	err  error
}

// openFIFOSink waits for a reader until ctx is done.
func openFIFOSink(ctx context.Context, path string) (sink, error) {
	w, err := fifo.OpenFifo(ctx, path, syscall.O_WRONLY, 0)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("wait for a reader of %s: %w", path, err)
	}
	r, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		w.Close()
		return nil, fmt.Errorf("hold %s open: %w", path, err)
	}
	return &fifoSink{path: path, w: w, r: r}, nil
}

func (f *fifoSink) Write(p []byte) (int, error) { return f.w.Write(p) }

// finish keeps what is in the FIFO until there is a reader: the kernel throws
// it away when the last end is closed, so a program that ends while its reader
// restarts would lose its last words.
func (f *fifoSink) finish(quit <-chan struct{}) {
	if !f.unread() {
		return
	}
	// Only without our own read end does opening for writing mean that somebody else reads.
	f.r.Close()
	ctx, cancel := until(context.Background(), quit)
	defer cancel(nil)
	if w, err := fifo.OpenFifo(ctx, f.path, syscall.O_WRONLY, 0); err == nil {
		w.Close()
	}
}

func (f *fifoSink) unread() bool {
	raw, err := f.r.SyscallConn()
	if err != nil {
		return false
	}
	var n int
	var ioctlErr error
	if err := raw.Control(func(fd uintptr) { n, ioctlErr = unix.IoctlGetInt(int(fd), unix.TIOCINQ) }); err != nil {
		return false
	}
	return ioctlErr == nil && n > 0
}

func (f *fifoSink) Close() error {
	// The FIFO's own Close may not be called by two goroutines at once.
	f.once.Do(func() { f.err = errors.Join(f.w.Close(), ignoreClosed(f.r.Close())) })
	return f.err
}

// ignoreClosed turns the error of closing twice into nil.
func ignoreClosed(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

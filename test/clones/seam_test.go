package clones

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/pkg/cio"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/shim/capture"
	"github.com/containerd-snap/snap/test/harness/run"
)

// printed is a part of what "scribe lines" prints without an end: a line's number tells
// its place, so that every byte that is lost, doubled or torn is seen.
type printed struct {
	mu sync.Mutex
	// head is what came before the place was known.
	head []byte
	// begin and end are the places of the first byte and behind the last, begin -1 before
	// it is known.
	begin, end int64
	err        error
}

func newPrinted() *printed { return &printed{begin: -1} }

// lineLength is that of a line, with its end.
const lineLength = 13

// Write checks more of it.
func (p *printed) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := len(b)
	if p.begin < 0 {
		p.head = append(p.head, b...)
		if len(p.head) < 2*lineLength {
			return all, nil
		}
		first := bytes.IndexByte(p.head, '\n')
		n, err := strconv.ParseInt(string(p.head[first+1:first+lineLength]), 10, 64)
		if err != nil || first >= lineLength {
			p.err = fmt.Errorf("%q is no part of numbered lines", p.head)
			return all, nil
		}
		p.begin = n*lineLength - int64(first) - 1
		p.end, b = p.begin, p.head
	}
	for len(b) > 0 && p.err == nil {
		line := fmt.Appendf(nil, "%0*d\n", lineLength-1, p.end/lineLength)[p.end%lineLength:]
		n := min(len(line), len(b))
		if !bytes.Equal(line[:n], b[:n]) {
			p.err = fmt.Errorf("at byte %d: %q instead of %q", p.end, b[:n], line[:n])
		}
		p.end += int64(n)
		b = b[n:]
	}
	return all, nil
}

// length is how far it has come.
func (p *printed) length() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.end - max(p.begin, 0)
}

// log is where the output of a task goes, and what came there.
type log struct {
	*printed
	creator cio.Creator
	// file has it, where no client reads; how much of it was looked at is off.
	file string
	off  int64
}

// update looks at what has come, where no client reads.
func (l *log) update(t *testing.T) {
	t.Helper()
	if l.file == "" {
		return
	}
	f, err := os.Open(l.file)
	if os.IsNotExist(err) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n, err := io.Copy(l.printed, io.NewSectionReader(f, l.off, 1<<62))
	if err != nil {
		t.Fatal(err)
	}
	l.off += n
}

// growsBy waits until so much more has come.
func (l *log) growsBy(t *testing.T, more int64) {
	t.Helper()
	l.update(t)
	was := l.length()
	run.Eventually(t, func() error {
		l.update(t)
		if n := l.length() - was; n < more {
			return fmt.Errorf("%d bytes more, want %d", n, more)
		}
		return nil
	})
}

// destinations are the kinds of what output goes to.
var destinations = map[string]func(t *testing.T) *log{
	"fifo": func(*testing.T) *log {
		p := newPrinted()
		return &log{printed: p, creator: cio.NewCreator(cio.WithStreams(nil, p, io.Discard), cio.WithFIFODir(shared.Dir))}
	},
	"terminal": func(*testing.T) *log {
		p := newPrinted()
		return &log{printed: p, creator: cio.NewCreator(cio.WithStreams(nil, p, nil), cio.WithFIFODir(shared.Dir), cio.WithTerminal)}
	},
	"file": func(t *testing.T) *log {
		file := filepath.Join(t.TempDir(), "log")
		return &log{printed: newPrinted(), file: file, creator: cio.LogFile(file)}
	},
	"program": func(t *testing.T) *log {
		dir := t.TempDir()
		program, file := filepath.Join(dir, "logger"), filepath.Join(dir, "log")
		// It says that it is ready by closing descriptor 5, and reads descriptor 3.
		if err := os.WriteFile(program, []byte("#!/bin/sh\nexec /bin/cat <&3 >>\"$2\" 5>&-\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		return &log{printed: newPrinted(), file: file, creator: cio.BinaryIO(program, map[string]string{"to": file})}
	},
}

// startInto starts a container whose output goes to a log.
func startInto(t *testing.T, w run.Want, creator cio.Creator) *run.Container {
	t.Helper()
	c := run.New(t, shared, w)
	if err := begin(c, creator); err != nil {
		t.Fatal(err)
	}
	return c
}

// begin makes and starts a container's task, whose output goes to a log.
func begin(c *run.Container, creator cio.Creator) (err error) {
	ctx := run.Context(c.T)
	if c.Task, err = c.NewTask(ctx, creator); err != nil {
		return err
	}
	if c.Exit, err = c.Task.Wait(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	return c.Task.Start(ctx)
}

// end ends the task and waits until its log is whole.
func end(t *testing.T, c *run.Container, l *log) {
	t.Helper()
	c.Kill(unix.SIGKILL)
	c.Wait()
	c.DeleteTask()
	l.update(t)
}

// check says whether the log has a byte too few or too many.
func (l *log) check(t *testing.T, of string) {
	t.Helper()
	if l.err != nil {
		t.Errorf("the log of %s (bytes %d to %d): %v", of, l.begin, l.end, l.err)
	}
}

// TestSeam captures programs that print as fast as they can. The clone's log goes on at
// the byte at which the program was captured: with the task ended by the capture, both
// logs together hold every byte once. With the task left running, its log goes on from
// there, too, and has no gap either.
func TestSeam(t *testing.T) {
	t.Parallel()
	for name, destination := range destinations {
		for _, stop := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s,stop=%t", name, stop), func(t *testing.T) {
				t.Parallel()
				// A file takes more than anybody wants to keep: there the program rests a little.
				w := run.Want{Image: scribeImage, Args: []string{"/bin/scribe", "lines"}}
				if name != "fifo" {
					w.Args = append(w.Args, "1000")
				}
				if name == "terminal" {
					w.Args, w.Terminal = []string{"sh", "-c", "stty raw -echo; exec " + strings.Join(w.Args, " ")}, true
				}
				first, second := destination(t), destination(t)
				c := startInto(t, w, first.creator)
				first.growsBy(t, 1<<20)
				before := first.length()
				e := c.MustCapture(capture.Request{Stop: stop})
				if stop {
					c.Wait()
					c.DeleteTask()
					first.update(t)
				} else {
					first.growsBy(t, 1<<20)
					end(t, c, first)
				}
				clone := startInto(t, w, second.creator)
				clone.MustRestored(e)
				second.growsBy(t, 1<<20)
				end(t, clone, second)

				first.check(t, "the captured container")
				second.check(t, "the clone")
				if first.begin != 0 {
					t.Errorf("the log of the captured container begins at byte %d", first.begin)
				}
				if second.begin < before || second.begin > first.end || stop && second.begin != first.end {
					t.Errorf("the log of the clone begins at byte %d; that of the captured container ends at %d, and had come to %d before the capture",
						second.begin, first.end, before)
				}
			})
		}
	}
}

// detachable makes streams that stay where they are when their client goes away.
func detachable(t *testing.T, terminal bool) (func() *cio.DirectIO, cio.Creator) {
	dir := t.TempDir()
	var opened *cio.DirectIO
	return func() *cio.DirectIO { return opened }, func(id string) (cio.IO, error) {
		fifos, err := cio.NewFIFOSetInDir(dir, id, terminal)
		if err != nil {
			return nil, err
		}
		opened, err = cio.NewDirectIO(context.WithoutCancel(t.Context()), cio.NewFIFOSet(fifos.Config, nil))
		return opened, err
	}
}

// TestReaderGone: the captured container's log has no reader, and the program waits for
// one. Its clone, whose reader is there, goes on, and so does it when one comes.
func TestReaderGone(t *testing.T) {
	t.Parallel()
	w := run.Want{Image: scribeImage, Args: []string{"/bin/scribe", "lines"}}
	direct, creator := detachable(t, false)
	c := startInto(t, w, creator)
	first := newPrinted()
	if _, err := io.CopyN(first, direct().Stdout, 1<<20); err != nil {
		t.Fatal(err)
	}
	path := direct().Config().Stdout
	if err := direct().Stdout.Close(); err != nil {
		t.Fatal(err)
	}
	waits(t, c.Pid())
	e := c.MustCapture(capture.Request{})

	second := destinations["fifo"](t)
	clone := startInto(t, w, second.creator)
	clone.MustRestored(e)
	second.growsBy(t, 1<<20)
	end(t, clone, second)
	second.check(t, "the clone")

	back, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	if _, err := io.CopyN(first, back, 4<<20); err != nil {
		t.Fatal(err)
	}
	(&log{printed: first}).check(t, "the captured container")
	if second.begin < 1<<20 || second.begin > first.end {
		t.Errorf("the log of the clone begins at byte %d; the other one came to %d", second.begin, first.end)
	}
	// A deletion would wait for the reader.
	go func() { _, _ = io.Copy(io.Discard, back) }()
	c.Kill(unix.SIGKILL)
	c.Wait()
	c.DeleteTask()
}

// waits waits until a process writes no more.
func waits(t *testing.T, pid int) {
	t.Helper()
	written := ""
	run.Eventually(t, func() error {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
		if err != nil {
			t.Fatal(err)
		}
		_, now, _ := strings.Cut(string(stat), "wchar: ")
		now, _, _ = strings.Cut(now, "\n")
		call, err := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", pid))
		if err != nil {
			t.Fatal(err)
		}
		if now != written || strings.HasPrefix(string(call), "running") {
			written = now
			return fmt.Errorf("process %d still writes: %s bytes so far", pid, now)
		}
		return nil
	})
}

// TestInput: what a program had not read when it was captured is still the captured
// container's; a clone has the input that it is given.
func TestInput(t *testing.T) {
	t.Parallel()
	w := run.Shell("until [ -e /go ]; do sleep 0.1; done; while read x; do echo \"got $x\"; done")
	w.Stdin = true
	c := run.Start(t, shared, w)
	fmt.Fprintln(c.Stdin, "early")
	e := c.MustCapture(capture.Request{})
	clone := run.Start(t, shared, w)
	clone.MustRestored(e)
	clone.MustExec("touch", "/go")
	fmt.Fprintln(clone.Stdin, "late")
	clone.Out.WaitFor(t, "got late")
	c.MustExec("touch", "/go")
	c.Out.WaitFor(t, "got early")
	if out := clone.Out.String(); out != "got late\n" {
		t.Errorf("the clone printed %q", out)
	}
}

// TestMovedOutput: a program that has its standard output elsewhere than at descriptor 1
// prints where its clone's output goes, and a clone of that one, too.
func TestMovedOutput(t *testing.T) {
	t.Parallel()
	s := startScribe(t)
	s.must("move-stdout\nopen x /x create")
	for range 3 {
		e := s.MustCapture(capture.Request{Stop: true})
		s.Wait()
		s = scribe{run.Start(t, shared, scribeOf())}
		s.MustRestored(e)
		s.must("write x y")
	}
	s.says("read x", `"yyy"`)
}

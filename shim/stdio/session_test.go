package stdio

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestStreams(t *testing.T) {
	c := fifos(t)
	s := open(t, c)
	stdout, stderr := collect(c.Stdout), collect(c.Stderr)
	start(t, s)
	cmd := run(t, s, "sh", "-c", "read line; echo out $line; echo err $line >&2")
	must(t, os.WriteFile(c.Stdin, []byte("hello\n"), 0))
	finish(t, s, cmd)
	expect(t, "stdout", receive(t, stdout), "out hello\n")
	expect(t, "stderr", receive(t, stderr), "err hello\n")
}

// The process's ends must be pipes without O_NONBLOCK, owned by whom was asked
// for, whatever is named.
func TestProcessFiles(t *testing.T) {
	for _, c := range []Config{{}, fifos(t), {Stdout: "binary:///bin/true"}} {
		s, err := Open("task", "tests", c, 1234, 4321)
		must(t, err)
		t.Cleanup(func() { s.Close() })
		for i, f := range s.ProcessFiles() {
			var st unix.Stat_t
			raw, err := f.SyscallConn()
			must(t, err)
			must(t, raw.Control(func(fd uintptr) {
				must(t, unix.Fstat(int(fd), &st))
				flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0)
				if err != nil || flags&unix.O_NONBLOCK != 0 {
					t.Errorf("descriptor %d has flags %#x, %v", i, flags, err)
				}
			}))
			if st.Mode&unix.S_IFMT != unix.S_IFIFO || st.Uid != 1234 || st.Gid != 4321 {
				t.Errorf("descriptor %d has mode %#o and belongs to %d:%d", i, st.Mode, st.Uid, st.Gid)
			}
		}
	}
}

// What is named nothing is /dev/null where that is asked for; the rest stays a pipe.
func TestNullStreams(t *testing.T) {
	for _, test := range []struct {
		c    Config
		null [3]bool
	}{
		{Config{}, [3]bool{true, true, true}},
		{Config{Stdout: "/out"}, [3]bool{true, false, true}},
		{Config{Stdout: "file:///out"}, [3]bool{true, false, false}},
		{Config{Stdin: "/in", Stdout: "/out", Stderr: "/err"}, [3]bool{}},
	} {
		s, err := Open("task", "tests", test.c, 0, 0)
		must(t, err)
		t.Cleanup(func() { s.Close() })
		must(t, s.NullStreams())
		for i, f := range s.ProcessFiles() {
			if got := f.Name() == os.DevNull; got != test.null[i] {
				t.Errorf("%+v: descriptor %d is /dev/null: %t", test.c, i, got)
			}
		}
	}
	s := open(t, Config{})
	must(t, s.NullStreams())
	start(t, s)
	cmd := run(t, s, "sh", "-c", "cat; [ -c /dev/stdin ] && [ -c /dev/stdout ] && [ -c /dev/stderr ]")
	finish(t, s, cmd)
}

func TestUnnamed(t *testing.T) {
	s := open(t, Config{})
	start(t, s)
	// More than a pipe holds, and stdin ends at once.
	cmd := run(t, s, "sh", "-c", "cat; head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2")
	finish(t, s, cmd)
}

func TestUnnamedDoesNotDelayDrain(t *testing.T) {
	s := open(t, Config{})
	start(t, s)
	files := s.ProcessFiles()
	child := run(t, s, "sleep", "1000") // a child of the process that outlives it
	if files[1] == nil {
		t.Fatal("no stdout")
	}
	must(t, s.Drain(within(t, patience)))
	must(t, s.Close())
	must(t, child.Process.Kill())
	child.Wait()
}

func TestOneFIFOForBoth(t *testing.T) {
	c := fifos(t)
	c.Stdin, c.Stderr = "", c.Stdout
	s := open(t, c)
	out := collect(c.Stdout)
	start(t, s)
	finish(t, s, run(t, s, "sh", "-c", "echo out; echo err >&2"))
	got := receive(t, out)
	if got != "out\nerr\n" && got != "err\nout\n" {
		t.Errorf("output is %q", got)
	}
}

func TestFile(t *testing.T) {
	for name, test := range map[string]struct{ stderr func(string) string }{
		"stderr named":   {func(uri string) string { return uri }},
		"stderr unnamed": {func(string) string { return "" }},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "new dir", "log")
			uri := "file://" + strings.ReplaceAll(path, " ", "%20")
			want := ""
			for i := range 2 {
				s := open(t, Config{Stdout: uri, Stderr: test.stderr(uri)})
				start(t, s)
				// The second descriptor writes when the first one's bytes have arrived.
				script := fmt.Sprintf("echo out%d; until grep -q out%d '%s'; do :; done; echo err%d >&2", i, i, path, i)
				finish(t, s, run(t, s, "sh", "-c", script))
				want += fmt.Sprintf("out%d\nerr%d\n", i, i)
			}
			data, err := os.ReadFile(path)
			must(t, err)
			expect(t, "the log", string(data), want)
			info, err := os.Stat(path)
			must(t, err)
			if info.Mode().Perm() != 0o644 {
				t.Errorf("the log's mode is %v", info.Mode())
			}
		})
	}
}

// A full disk costs output, not the process.
func TestFullDisk(t *testing.T) {
	s := open(t, Config{Stdout: "/dev/full"})
	start(t, s)
	cmd := run(t, s, "head", "-c", "1000000", "/dev/zero")
	must(t, cmd.Wait())
	err := s.Drain(within(t, patience))
	expectError(t, err, "task", "copy stdout to /dev/full", "1000000 bytes lost")
	if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("%v is not ENOSPC", err)
	}
	must(t, s.Close())
}

func TestHugeOutput(t *testing.T) {
	const size = 64 << 20
	c := fifos(t)
	source := filepath.Join(t.TempDir(), "source")
	f, err := os.Create(source)
	must(t, err)
	want := sha256.New()
	_, err = io.CopyN(io.MultiWriter(f, want), noise(1), size)
	must(t, errors.Join(err, f.Close()))

	s := open(t, c)
	errOut := collect(c.Stderr)
	sum := make(chan string, 1)
	go func() {
		f, err := os.Open(c.Stdout)
		if err != nil {
			sum <- err.Error()
			return
		}
		defer f.Close()
		h := sha256.New()
		n, err := io.Copy(h, f)
		sum <- fmt.Sprint(n, err, h.Sum(nil))
	}()
	start(t, s)
	finish(t, s, run(t, s, "cat", source))
	expect(t, "the sum", receive(t, sum), fmt.Sprint(size, error(nil), want.Sum(nil)))
	expect(t, "stderr", receive(t, errOut), "")
}

// noise is an endless reader of bytes that do not repeat soon.
type noise uint64

func (n noise) Read(p []byte) (int, error) {
	for i := range p {
		n = n*6364136223846793005 + 1442695040888963407
		p[i] = byte(n >> 56)
	}
	return len(p), nil
}

// stdin ends with CloseStdin, not with the client that wrote to it.
func TestCloseStdin(t *testing.T) {
	c := fifos(t)
	s := open(t, Config{Stdin: c.Stdin, Stdout: c.Stdout})
	reader := make(chan *os.File, 1)
	go func() { reader <- openReader(t, c.Stdout) }()
	start(t, s)
	out := receive(t, reader)
	cmd := run(t, s, "cat")
	for _, line := range []string{"first client\n", "second client\n"} {
		must(t, os.WriteFile(c.Stdin, []byte(line), 0))
		expect(t, "the echo", readUntil(t, out, "\n"), line)
	}
	// What is in the FIFO comes before the end.
	must(t, os.WriteFile(c.Stdin, []byte("last words"), 0))
	must(t, s.CloseStdin())
	must(t, s.CloseStdin())
	rest, err := io.ReadAll(out)
	must(t, err)
	expect(t, "the rest", string(rest), "last words")
	finish(t, s, cmd)
}

func TestCloseStdinBeforeStart(t *testing.T) {
	c := fifos(t)
	s := open(t, Config{Stdin: c.Stdin})
	must(t, s.CloseStdin())
	start(t, s)
	finish(t, s, run(t, s, "cat"))
}

// The reader may go away and come back, while the process lives and after.
func TestReaderComesBack(t *testing.T) {
	c := fifos(t)
	s := open(t, Config{Stdin: c.Stdin, Stdout: c.Stdout})
	reader := make(chan *os.File, 1)
	go func() { reader <- openReader(t, c.Stdout) }()
	start(t, s)
	out := receive(t, reader)
	cmd := run(t, s, "sh", "-c", "while read n; do echo $n; done; echo bye")
	in, err := os.OpenFile(c.Stdin, os.O_WRONLY, 0)
	must(t, err)
	fmt.Fprintln(in, 1)
	expect(t, "the first line", readUntil(t, out, "\n"), "1\n")
	out.Close()
	fmt.Fprintln(in, 2)
	out = openReader(t, c.Stdout)
	expect(t, "the second line", readUntil(t, out, "\n"), "2\n")
	out.Close()

	must(t, in.Close())
	must(t, s.CloseStdin())
	must(t, cmd.Wait())
	must(t, s.Drain(within(t, patience)))
	expect(t, "what the process wrote without a reader", receive(t, collect(c.Stdout)), "bye\n")
	must(t, s.Close())
}

// A full FIFO without a reader stops the copy, and not the exit.
func TestStuckReader(t *testing.T) {
	c := fifos(t)
	s := open(t, Config{Stdout: c.Stdout})
	reader := make(chan *os.File, 1)
	go func() { reader <- openReader(t, c.Stdout) }()
	start(t, s)
	out := receive(t, reader)
	cmd := run(t, s, "head", "-c", "100000", "/dev/zero") // more than the FIFO holds, less than FIFO and pipe
	must(t, cmd.Wait())
	s.Exited()
	err := s.Drain(within(t, 50*time.Millisecond))
	expectError(t, err, "task", "stdout", c.Stdout, "gave up")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v is not DeadlineExceeded", err)
	}
	must(t, s.Close())
	n, err := io.Copy(io.Discard, out)
	if err != nil || n == 0 {
		t.Errorf("read %d bytes, %v", n, err)
	}
}

// Whoever reads late gets everything, if nobody gives up before.
func TestSlowReader(t *testing.T) {
	c := fifos(t)
	s := open(t, Config{Stdout: c.Stdout})
	reader := make(chan *os.File, 1)
	go func() { reader <- openReader(t, c.Stdout) }()
	start(t, s)
	out := receive(t, reader)
	cmd := run(t, s, "head", "-c", "100000", "/dev/zero")
	must(t, cmd.Wait())
	s.Exited()
	n, err := io.Copy(io.Discard, out)
	if err != nil || n != 100000 {
		t.Errorf("read %d bytes, %v", n, err)
	}
	must(t, s.Drain(within(t, patience)))
}

func TestStartWithoutReader(t *testing.T) {
	noLeaks(t, 20, func() {
		c := fifos(t)
		s := open(t, c)
		err := s.Start(within(t, time.Millisecond))
		expectError(t, err, "task", "wait for a reader of "+c.Stdout, "wait for a reader of "+c.Stderr)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v is not DeadlineExceeded", err)
		}
		must(t, s.Close())
	})
}

func TestStartErrors(t *testing.T) {
	for name, test := range map[string]struct {
		config Config
		want   string
	}{
		"no stdin":  {Config{Stdin: "/nonexistent/stdin"}, "/nonexistent/stdin"},
		"no stdout": {Config{Stdout: "/nonexistent/stdout"}, "/nonexistent/stdout"},
		"no stderr": {Config{Stderr: "/nonexistent/stderr"}, "/nonexistent/stderr"},
		"directory": {Config{Stdout: "/proc"}, "/proc"},
		"no parent": {Config{Stdout: "file:///proc/nonexistent/log"}, "/proc/nonexistent/log"},
		"logger":    {Config{Stdout: "binary:///nonexistent/logger"}, "/nonexistent/logger"},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, test.config)
			expectError(t, s.Start(within(t, patience)), "task", test.want)
			expectError(t, s.Start(within(t, patience)), "started before")
			must(t, s.Close())
		})
	}
}

// Close ends a Start that waits.
func TestCloseInterruptsStart(t *testing.T) {
	c := fifos(t)
	s := open(t, c)
	result := make(chan error, 1)
	go func() { result <- s.Start(within(t, patience)) }()
	must(t, s.Close())
	if err := receive(t, result); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Start returns %v", err)
	}
}

func TestConcurrentClose(t *testing.T) {
	c := fifos(t)
	for range 50 {
		s := open(t, c)
		stdout, stderr := collect(c.Stdout), collect(c.Stderr)
		start(t, s)
		cmd := run(t, s, "yes")
		var all sync.WaitGroup
		for _, f := range []func(){
			func() { s.Close() }, func() { s.Close() }, func() { s.CloseStdin() },
			s.CloseProcessFiles, s.Exited, func() { s.Drain(within(t, patience)) },
			func() { s.Resize(80, 24) }, func() { s.ProcessFiles() },
		} {
			all.Go(f)
		}
		all.Wait()
		receive(t, stdout)
		receive(t, stderr)
		cmd.Wait() // SIGPIPE
	}
}

func TestSessionsLeakNothing(t *testing.T) {
	c := fifos(t)
	log := "file://" + filepath.Join(t.TempDir(), "log")
	noLeaks(t, 200, func() {
		s := open(t, c)
		stdout, stderr := collect(c.Stdout), collect(c.Stderr)
		start(t, s)
		must(t, os.WriteFile(c.Stdin, []byte("x"), 0))
		must(t, s.CloseStdin())
		finish(t, s, run(t, s, "cat"))
		expect(t, "stdout", receive(t, stdout), "x")
		receive(t, stderr)

		// Without a process, and given up at every stage.
		must(t, open(t, Config{}).Close())
		must(t, open(t, Config{Terminal: true}).Close())
		s = open(t, Config{Stdin: c.Stdin, Stdout: log})
		start(t, s)
		must(t, s.Close())
	})
}

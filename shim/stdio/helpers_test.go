package stdio

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a test waits for what must happen.
const patience = 10 * time.Second

// TestMain lets the test binary be the logging program, too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "logger" {
		// Not os.Exit, in which the race detector sleeps for a second.
		syscall.Exit(runLogger(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// fifos makes three FIFOs and returns their paths as a Config.
func fifos(t testing.TB) Config {
	t.Helper()
	dir := t.TempDir()
	c := Config{Stdin: filepath.Join(dir, "stdin"), Stdout: filepath.Join(dir, "stdout"), Stderr: filepath.Join(dir, "stderr")}
	for _, path := range []string{c.Stdin, c.Stdout, c.Stderr} {
		if err := unix.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// open opens a session that the test closes.
func open(t testing.TB, c Config) *Session {
	t.Helper()
	s, err := Open("task", "tests", c, os.Getuid(), os.Getgid())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// within returns a context that ends after d or with the test.
func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func start(t testing.TB, s *Session) {
	t.Helper()
	must(t, s.Start(within(t, patience)))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// openReader opens a FIFO as a client does. It blocks until there is a writer.
func openReader(t testing.TB, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDONLY, 0)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

// collect reads path to its end in the background.
func collect(path string) <-chan string {
	out := make(chan string, 1)
	go func() {
		data, err := os.ReadFile(path)
		if err != nil {
			data = fmt.Appendf(data, "[%v]", err)
		}
		out <- string(data)
	}()
	return out
}

func receive[T any](t testing.TB, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

func expect(t testing.TB, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s is %q, want %q", what, got, want)
	}
}

func expectError(t testing.TB, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", parts)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not say %q", err, part)
		}
	}
}

// run starts argv on the session's pipes.
func run(t testing.TB, s *Session, argv ...string) *exec.Cmd {
	t.Helper()
	files := s.ProcessFiles()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = files[0], files[1], files[2]
	must(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill() })
	s.CloseProcessFiles()
	return cmd
}

// newPTY opens a pseudo-terminal.
func newPTY(t testing.TB) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	must(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	must(t, err)
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	return master, slave
}

// sendFiles sends files through socket, as the init of a container does.
func sendFiles(t testing.TB, socket *os.File, files ...*os.File) {
	t.Helper()
	var fds []int
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	must(t, unix.Sendmsg(int(socket.Fd()), []byte(files[0].Name()), unix.UnixRights(fds...), nil, 0))
}

// runOnTerminal starts argv on a terminal of its own and receives that.
func runOnTerminal(t testing.TB, s *Session, argv ...string) *exec.Cmd {
	t.Helper()
	master, slave := newPTY(t)
	sendFiles(t, s.ConsoleSocket(), master)
	master.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	must(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill() })
	slave.Close()
	s.CloseProcessFiles()
	must(t, s.ReceiveConsole(within(t, patience)))
	return cmd
}

// finish waits for the process, drains and closes.
func finish(t testing.TB, s *Session, cmd *exec.Cmd) {
	t.Helper()
	must(t, cmd.Wait())
	must(t, s.Drain(within(t, patience)))
	must(t, s.Close())
}

// readUntil reads f until what it read ends with suffix.
func readUntil(t testing.TB, f *os.File, suffix string) string {
	t.Helper()
	must(t, f.SetReadDeadline(time.Now().Add(patience)))
	var got []byte
	b := make([]byte, 1)
	for !strings.HasSuffix(string(got), suffix) {
		if _, err := io.ReadFull(f, b); err != nil {
			t.Fatalf("read %q, then: %v", got, err)
		}
		got = append(got, b[0])
	}
	return string(got)
}

// descriptors counts the open files of this process.
func descriptors(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(entries)
}

// noLeaks runs f once to warm up, then n times, and expects as many open files
// and goroutines after as before.
func noLeaks(t *testing.T, n int, f func()) {
	t.Helper()
	f()
	files, routines := descriptors(t), runtime.NumGoroutine()
	for range n {
		f()
	}
	// Goroutines that were told to end need a moment for it.
	deadline := time.Now().Add(patience)
	for descriptors(t) > files || runtime.NumGoroutine() > routines {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<16)
			stacks = stacks[:runtime.Stack(stacks, true)]
			t.Fatalf("%d open files and %d goroutines, before %d and %d\n%s",
				descriptors(t), runtime.NumGoroutine(), files, routines, stacks)
		}
		runtime.Gosched()
	}
}

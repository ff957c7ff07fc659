package stdio

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// What is written just before the exit arrives, every time.
func TestTerminalLastWords(t *testing.T) {
	c := fifos(t)
	c.Terminal, c.Stderr = true, ""
	noLeaks(t, 200, func() {
		s := open(t, c)
		out := collect(c.Stdout)
		start(t, s)
		cmd := runOnTerminal(t, s, "sh", "-c", "head -c 5000 /dev/zero; echo bye")
		finish(t, s, cmd)
		expect(t, "the output", receive(t, out), strings.Repeat("\x00", 5000)+"bye\r\n")
	})
}

// The process may be gone before its terminal is received.
func TestTerminalOfExited(t *testing.T) {
	c := fifos(t)
	s := open(t, Config{Stdout: c.Stdout, Terminal: true})
	out := collect(c.Stdout)
	start(t, s)
	master, slave := newPTY(t)
	sendFiles(t, s.ConsoleSocket(), master)
	master.Close()
	fmt.Fprintln(slave, "bye")
	slave.Close()
	s.Exited()
	must(t, s.ReceiveConsole(within(t, patience)))
	must(t, s.Drain(within(t, patience)))
	expect(t, "the output", receive(t, out), "bye\r\n")
}

// The terminal of a failed attempt is not taken for that of the next.
func TestRenewConsole(t *testing.T) {
	c := fifos(t)
	noLeaks(t, 5, func() {
		s := open(t, Config{Stdout: c.Stdout, Terminal: true})
		out := collect(c.Stdout)
		start(t, s)
		master, slave := newPTY(t)
		sendFiles(t, s.ConsoleSocket(), master)
		fmt.Fprintln(slave, "of the failed attempt")
		master.Close()
		slave.Close()
		must(t, s.RenewConsole())
		finish(t, s, runOnTerminal(t, s, "echo", "bye"))
		expect(t, "the output", receive(t, out), "bye\r\n")
		expectError(t, s.RenewConsole(), "before")
	})
	must(t, open(t, Config{}).RenewConsole())
}

func TestTerminalHugeOutput(t *testing.T) {
	const lines = 200000
	c := fifos(t)
	s := open(t, Config{Stdout: c.Stdout, Terminal: true})
	out := collect(c.Stdout)
	start(t, s)
	finish(t, s, runOnTerminal(t, s, "seq", strconv.Itoa(lines)))
	var want strings.Builder
	for i := range lines {
		fmt.Fprintf(&want, "%d\r\n", i+1)
	}
	if got := receive(t, out); got != want.String() {
		t.Errorf("read %d bytes, want %d", len(got), want.Len())
	}
}

func TestTerminalInputAndSize(t *testing.T) {
	c := fifos(t)
	s := open(t, Config{Stdin: c.Stdin, Stdout: c.Stdout, Terminal: true})
	must(t, s.Resize(101, 42)) // before there is a terminal
	reader := make(chan *os.File, 1)
	go func() { reader <- openReader(t, c.Stdout) }()
	start(t, s)
	out := receive(t, reader)
	cmd := runOnTerminal(t, s, "sh", "-c", "stty -echo; echo ready; while read line; do echo $line; stty size; done")
	readUntil(t, out, "ready\r\n")
	in, err := os.OpenFile(c.Stdin, os.O_WRONLY, 0)
	must(t, err)
	defer in.Close()
	fmt.Fprintln(in, "one")
	expect(t, "the answer", readUntil(t, out, "42 101\r\n"), "one\r\n42 101\r\n")
	must(t, s.Resize(80, 24))
	fmt.Fprintln(in, "two")
	expect(t, "the answer", readUntil(t, out, "24 80\r\n"), "two\r\n24 80\r\n")
	fmt.Fprint(in, "\x04") // end of input
	finish(t, s, cmd)
	expectError(t, s.Resize(80, 24), "resize", "task")
}

// A terminal that everyone has closed is not at its end while the process lives.
func TestTerminalReopened(t *testing.T) {
	c := fifos(t)
	s := open(t, Config{Stdout: c.Stdout, Terminal: true})
	reader := make(chan *os.File, 1)
	go func() { reader <- openReader(t, c.Stdout) }()
	start(t, s)
	out := receive(t, reader)
	master, slave := newPTY(t)
	sendFiles(t, s.ConsoleSocket(), master)
	must(t, s.ReceiveConsole(within(t, patience)))
	master.Close()
	path := slave.Name()
	for i := range 100 {
		fmt.Fprintln(slave, i)
		slave.Close()
		expect(t, "the line", readUntil(t, out, "\n"), fmt.Sprintf("%d\r\n", i))
		var err error
		slave, err = os.OpenFile(path, os.O_RDWR|syscall.O_NOCTTY, 0)
		must(t, err)
	}
	slave.Close()
	must(t, s.Drain(within(t, patience)))
}

// With stdin's end the line is hung up, as by the stock shim.
func TestTerminalHangUp(t *testing.T) {
	c := fifos(t)
	s := open(t, Config{Stdin: c.Stdin, Stdout: c.Stdout, Terminal: true})
	reader := make(chan *os.File, 1)
	go func() { reader <- openReader(t, c.Stdout) }()
	start(t, s)
	out := receive(t, reader)
	cmd := runOnTerminal(t, s, "sh", "-c", "echo ready; exec sleep 1000")
	readUntil(t, out, "ready\r\n")
	must(t, s.CloseStdin())
	err := cmd.Wait()
	if err == nil || !strings.Contains(err.Error(), "hangup") {
		t.Errorf("the process ends with %v", err)
	}
	must(t, s.Drain(within(t, patience)))
}

// A child that still has the terminal delays nothing.
func TestTerminalWithChild(t *testing.T) {
	c := fifos(t)
	s := open(t, Config{Stdout: c.Stdout, Terminal: true})
	out := collect(c.Stdout)
	start(t, s)
	cmd := runOnTerminal(t, s, "sh", "-c", "trap '' HUP; sleep 1000 & echo $!")
	must(t, cmd.Wait())
	must(t, s.Drain(within(t, patience)))
	var child int
	_, err := fmt.Sscan(receive(t, out), &child)
	must(t, err)
	must(t, syscall.Kill(child, syscall.SIGKILL))
}

func TestReceiveConsoleErrors(t *testing.T) {
	for name, test := range map[string]struct {
		prepare func(s *Session)
		within  time.Duration
		want    string
	}{
		"process ended": {func(s *Session) { s.CloseProcessFiles() }, patience, "ended before it sent"},
		"nothing comes": {func(*Session) {}, 20 * time.Millisecond, "deadline exceeded"},
		"no terminal":   {func(s *Session) { sendFiles(t, s.ConsoleSocket(), os.Stdin) }, patience, "as a terminal"},
		"no descriptor": {func(s *Session) { s.ConsoleSocket().WriteString("x") }, patience, "0 descriptors"},
		"two":           {func(s *Session) { sendFiles(t, s.ConsoleSocket(), os.Stdin, os.Stdin) }, patience, "2 descriptors"},
		"closed":        {func(s *Session) { s.Close() }, patience, "close"},
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t, 5, func() {
				s := open(t, Config{Terminal: true})
				expectError(t, s.ReceiveConsole(t.Context()), "after Start")
				start(t, s)
				test.prepare(s)
				expectError(t, s.ReceiveConsole(within(t, test.within)), "receive the terminal of task", test.want)
				s.Close()
			})
		})
	}
	expectError(t, open(t, Config{}).ReceiveConsole(t.Context()), "without one")
}

func TestTerminalConcurrentClose(t *testing.T) {
	c := fifos(t)
	for range 30 {
		s := open(t, Config{Stdin: c.Stdin, Stdout: c.Stdout, Terminal: true})
		out := collect(c.Stdout)
		start(t, s)
		cmd := runOnTerminal(t, s, "yes")
		var all sync.WaitGroup
		for _, f := range []func(){
			func() { s.Close() }, func() { s.Close() }, func() { s.CloseStdin() }, s.Exited,
			func() { s.Drain(within(t, patience)) },
			func() {
				if err := s.Resize(80, 24); err != nil && !errors.Is(err, os.ErrClosed) {
					t.Error(err)
				}
			},
		} {
			all.Go(f)
		}
		all.Wait()
		receive(t, out)
		cmd.Wait() // SIGHUP
	}
}

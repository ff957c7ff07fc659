package cri

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/util/exec"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	remote "k8s.io/cri-client/pkg"
)

// stream connects to what the streaming server offers at an address.
func stream(ctx context.Context, address string, o remotecommand.StreamOptions) error {
	u, err := url.Parse(address)
	if err != nil {
		return err
	}
	e, err := remotecommand.NewSPDYExecutor(&rest.Config{}, http.MethodPost, u)
	if err != nil {
		return err
	}
	return e.StreamWithContext(ctx, o)
}

// sizes are those that a terminal takes one after the other.
type sizes chan remotecommand.TerminalSize

func (s sizes) Next() *remotecommand.TerminalSize {
	size, ok := <-s
	if !ok {
		return nil
	}
	return &size
}

// TestExec runs commands in a container with streams, with a terminal and with
// an exit code.
func TestExec(t *testing.T) {
	each(t, func(t *testing.T, handler string) {
		p := runPod(t, handler)
		c := p.startShell("a", forever)
		c.streams()
		c.exitCode()
		c.terminal()
	})
}

// exec prepares a command.
func (c *container) exec(args []string, terminal, stdin bool) string {
	c.t.Helper()
	r, err := runtime.Exec(testContext(c.t), &runtimeapi.ExecRequest{
		ContainerId: c.id, Cmd: args, Tty: terminal, Stdin: stdin, Stdout: true, Stderr: !terminal,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return r.GetUrl()
}

// streams sends a megabyte through a command.
func (c *container) streams() {
	c.t.Helper()
	input := bytes.Repeat([]byte("0123456789abcde\n"), 1<<16)
	var stdout, stderr bytes.Buffer
	err := stream(testContext(c.t), c.exec([]string{"sh", "-c", "echo to stderr >&2; cat; echo end"}, false, true),
		remotecommand.StreamOptions{Stdin: bytes.NewReader(input), Stdout: &stdout, Stderr: &stderr})
	if err != nil {
		c.t.Error(err)
	}
	if want := string(input) + "end\n"; stdout.String() != want {
		c.t.Errorf("stdout has %d bytes, want %d: %.40q", stdout.Len(), len(want), stdout.String())
	}
	if stderr.String() != "to stderr\n" {
		c.t.Errorf("stderr %q", stderr.String())
	}
}

func (c *container) exitCode() {
	c.t.Helper()
	for script, want := range map[string]int{"exit 42": 42, "kill -9 $$": 137} {
		var out bytes.Buffer
		err := stream(testContext(c.t), c.exec([]string{"sh", "-c", script}, false, false), remotecommand.StreamOptions{Stdout: &out, Stderr: &out})
		if code, ok := errors.AsType[exec.CodeExitError](err); !ok || code.Code != want {
			c.t.Errorf("%s: %v, want exit code %d", script, err, want)
		}
	}
	var out bytes.Buffer
	err := stream(testContext(c.t), c.exec([]string{"/no/such"}, false, false), remotecommand.StreamOptions{Stdout: &out, Stderr: &out})
	if err == nil || !strings.Contains(err.Error(), "no such file or directory") {
		c.t.Errorf("a program that does not exist: %v", err)
	}
}

// terminal talks to a shell at a terminal, and changes its size.
func (c *container) terminal() {
	c.t.Helper()
	input, keys := io.Pipe()
	var out screen
	resize := make(sizes, 1)
	resize <- remotecommand.TerminalSize{Width: 81, Height: 25}
	done := make(chan error, 1)
	address := c.exec([]string{"sh", "-c", "tty; while read -r l; do case $l in size) stty size;; *) exit 6;; esac; done"}, true, true)
	ctx := testContext(c.t)
	go func() {
		done <- stream(ctx, address, remotecommand.StreamOptions{Stdin: input, Stdout: &out, Tty: true, TerminalSizeQueue: resize})
	}()
	say := func(text, want string) {
		c.t.Helper()
		// The size arrives on a way of its own.
		eventually(c.t, func() error {
			if _, err := io.WriteString(keys, text); err != nil {
				return err
			}
			time.Sleep(50 * time.Millisecond)
			if got := out.String(); !strings.Contains(got, want) {
				return fmt.Errorf("the terminal shows %q, not %q", got, want)
			}
			return nil
		})
	}
	out.has(c.t, "/dev/pts/")
	say("size\n", "25 81")
	resize <- remotecommand.TerminalSize{Width: 132, Height: 50}
	say("size\n", "50 132")
	if _, err := io.WriteString(keys, "end\n"); err != nil {
		c.t.Error(err)
	}
	err := <-done
	if code, ok := errors.AsType[exec.CodeExitError](err); !ok || code.Code != 6 {
		c.t.Errorf("the command ended with %v, want exit code 6", err)
	}
	close(resize)
	keys.Close()
}

// screen is what a terminal has shown so far.
type screen struct {
	// mu guards b.
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func (s *screen) has(t *testing.T, text string) {
	t.Helper()
	eventually(t, func() error {
		if got := s.String(); !strings.Contains(got, text) {
			return fmt.Errorf("the output lacks %q: %q", text, got)
		}
		return nil
	})
}

// TestExecSync is what probes do.
func TestExecSync(t *testing.T) {
	each(t, func(t *testing.T, handler string) {
		p := runPod(t, handler)
		c := p.startShell("a", forever)
		stdout, stderr, err := runtime.ExecSync(testContext(t), c.id, []string{"sh", "-c", "echo out; echo err >&2; exit 9"}, deadline)
		code, ok := err.(interface{ ExitStatus() int })
		if !ok || code.ExitStatus() != 9 || string(stdout) != "out\n" || string(stderr) != "err\n" {
			t.Errorf("stdout %q, stderr %q, %v", stdout, stderr, err)
		}
		began := time.Now()
		if _, _, err := runtime.ExecSync(testContext(t), c.id, []string{"sleep", "779"}, time.Second); !errors.Is(err, remote.ErrCommandTimedOut) && !strings.Contains(fmt.Sprint(err), "timed out") && !strings.Contains(fmt.Sprint(err), "DeadlineExceeded") {
			t.Errorf("a command that takes too long: %v after %s", err, time.Since(began))
		}
		if out := c.run("sh", "-c", "ps -o args | grep '[s]leep 779' || true"); out != "" {
			t.Errorf("the command that took too long still runs: %q", out)
		}
		// Many at once, as the probes of a pod come together.
		var wg sync.WaitGroup
		for n := range 8 {
			wg.Go(func() {
				if out, _, err := runtime.ExecSync(testContext(t), c.id, []string{"echo", strconv.Itoa(n)}, deadline); err != nil || string(out) != fmt.Sprintln(n) {
					t.Errorf("%d: %q, %v", n, out, err)
				}
			})
		}
		wg.Wait()
	})
}

// TestAttach joins a container's own streams: twice, and what it prints is in
// its log as well.
func TestAttach(t *testing.T) {
	each(t, func(t *testing.T, handler string) {
		p := runPod(t, handler)
		c := p.startShell("a", "trap 'exit 3' TERM; while read -r l; do echo heard $l; done; echo closed; while :; do sleep 0.1; done", func(c *runtimeapi.ContainerConfig) {
			c.Stdin, c.StdinOnce = true, true
		})
		r, err := runtime.Attach(testContext(t), &runtimeapi.AttachRequest{ContainerId: c.id, Stdin: true, Stdout: true, Stderr: true})
		if err != nil {
			t.Fatal(err)
		}
		watch, err := runtime.Attach(testContext(t), &runtimeapi.AttachRequest{ContainerId: c.id, Stdout: true, Stderr: true})
		if err != nil {
			t.Fatal(err)
		}
		var out, seen screen
		watching := make(chan error, 1)
		ctx := testContext(t)
		go func() {
			watching <- stream(ctx, watch.GetUrl(), remotecommand.StreamOptions{Stdout: &seen, Stderr: &seen})
		}()
		input, keys := io.Pipe()
		done := make(chan error, 1)
		go func() {
			done <- stream(ctx, r.GetUrl(), remotecommand.StreamOptions{Stdin: input, Stdout: &out, Stderr: &out})
		}()
		// Until both are attached.
		eventually(t, func() error {
			fmt.Fprintln(keys, "hello")
			time.Sleep(50 * time.Millisecond)
			if got := []string{out.String(), seen.String()}; !strings.Contains(got[0], "heard hello") || !strings.Contains(got[1], "heard hello") {
				return fmt.Errorf("attached streams show %q", got)
			}
			return nil
		})
		keys.Close()
		out.has(t, "closed")
		seen.has(t, "closed")
		c.logHas("stdout F heard hello")
		c.logHas("stdout F closed")
		c.stop(10)
		for _, ended := range []chan error{done, watching} {
			select {
			case <-ended:
			case <-time.After(deadline):
				t.Fatal("an attached stream stays open after its container has ended")
			}
		}
	})
}

// TestAttachTerminal attaches to a container that has a terminal, sets its size,
// leaves and comes back.
func TestAttachTerminal(t *testing.T) {
	each(t, func(t *testing.T, handler string) {
		p := runPod(t, handler)
		c := p.startShell("a", "trap 'stty size' WINCH; tty; while :; do read -r l && echo heard $l; done", func(c *runtimeapi.ContainerConfig) {
			c.Stdin, c.Tty = true, true
		})
		for _, size := range []remotecommand.TerminalSize{{Width: 90, Height: 30}, {Width: 100, Height: 40}} {
			r, err := runtime.Attach(testContext(t), &runtimeapi.AttachRequest{ContainerId: c.id, Stdin: true, Stdout: true, Tty: true})
			if err != nil {
				t.Fatal(err)
			}
			input, keys := io.Pipe()
			resize := make(sizes, 1)
			resize <- size
			var out screen
			ctx, cancel := context.WithTimeout(t.Context(), deadline)
			done := make(chan error, 1)
			go func() {
				done <- stream(ctx, r.GetUrl(), remotecommand.StreamOptions{Stdin: input, Stdout: &out, Tty: true, TerminalSizeQueue: resize})
			}()
			fmt.Fprintln(keys, "hello")
			out.has(t, "heard hello")
			eventually(t, func() error {
				if got, want := c.run("sh", "-c", "stty size </proc/1/fd/0"), fmt.Sprintln(size.Height, size.Width); got != want {
					return fmt.Errorf("the terminal's size is %q, want %q", got, want)
				}
				return nil
			})
			cancel()
			close(resize)
			keys.Close()
			<-done
		}
		c.logHas("/dev/pts/0")
		c.logHas("heard hello")
	})
}

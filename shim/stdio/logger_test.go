package stdio

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// runLogger is a logging program. Its arguments are the mode, "to" and the path of its log.
func runLogger(args []string) int {
	mode, path := args[0], args[2]
	stdout, stderr, ready := os.NewFile(3, "stdout"), os.NewFile(4, "stderr"), os.NewFile(5, "ready")
	switch mode {
	case "silent":
	case "mute", "crash":
		if mode == "crash" {
			return 3
		}
		ready.Close()
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
		ready.Write([]byte{0})
		for {
			time.Sleep(time.Hour)
		}
	default:
		ready.Write([]byte{0})
		ready.Close()
	}
	if mode == "silent" {
		io.Copy(io.Discard, stdout)
		return 0
	}
	out, err1 := io.ReadAll(stdout)
	errOut, err2 := io.ReadAll(stderr)
	record := fmt.Sprintf("env=%q out=%q err=%q", os.Environ(), out, errOut)
	if err := errors.Join(err1, err2, os.WriteFile(path+".new", []byte(record), 0o600), os.Rename(path+".new", path)); err != nil {
		return 1
	}
	if mode == "fail" {
		return 4
	}
	return 0
}

// loggerURI names the test binary as a logging program, and its log.
func loggerURI(t *testing.T, scheme, mode string) (uri, path string) {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	path = filepath.Join(t.TempDir(), "log")
	return fmt.Sprintf("%s://%s?logger=%s&to=%s", scheme, (&url.URL{Path: self}).EscapedPath(), mode, url.QueryEscape(path)), path
}

const loggerEnv = `env=["CONTAINER_ID=task" "CONTAINER_NAMESPACE=tests"] `

func TestLogger(t *testing.T) {
	for _, test := range []struct{ scheme, mode string }{{"binary", "plain"}, {"binary-v2", "plain"}, {"binary", "mute"}} {
		t.Run(test.scheme+" "+test.mode, func(t *testing.T) {
			uri, path := loggerURI(t, test.scheme, test.mode)
			c := fifos(t)
			s := open(t, Config{Stdin: c.Stdin, Stdout: uri, Stderr: uri})
			start(t, s)
			cmd := run(t, s, "sh", "-c", "cat; echo err >&2")
			must(t, os.WriteFile(c.Stdin, []byte("out\n"), 0))
			must(t, s.CloseStdin())
			finish(t, s, cmd)
			got, err := os.ReadFile(path)
			must(t, err)
			expect(t, "the log", string(got), loggerEnv+`out="out\n" err="err\n"`)
		})
	}
}

func TestLoggerOnTerminal(t *testing.T) {
	uri, path := loggerURI(t, "binary-v2", "plain")
	s := open(t, Config{Stdout: uri, Stderr: uri, Terminal: true})
	start(t, s)
	finish(t, s, runOnTerminal(t, s, "sh", "-c", "echo out; echo err >&2"))
	got, err := os.ReadFile(path)
	must(t, err)
	expect(t, "the log", string(got), loggerEnv+`out="out\r\nerr\r\n" err=""`)
}

func TestLoggerNotReady(t *testing.T) {
	for name, test := range map[string]struct {
		scheme, mode string
		within       time.Duration
		want         string
	}{
		"closes without a byte": {"binary-v2", "mute", patience, "without writing"},
		"crashes":               {"binary-v2", "crash", patience, "without writing"},
		"says nothing":          {"binary", "silent", 300 * time.Millisecond, context.DeadlineExceeded.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			uri, _ := loggerURI(t, test.scheme, test.mode)
			s := open(t, Config{Stdout: uri})
			expectError(t, s.Start(within(t, test.within)), "task", "logging program", test.want)
			must(t, s.Close())
		})
	}
}

func TestLoggerFails(t *testing.T) {
	uri, _ := loggerURI(t, "binary", "fail")
	s := open(t, Config{Stdout: uri})
	start(t, s)
	must(t, run(t, s, "true").Wait())
	expectError(t, s.Drain(within(t, patience)), "run logging program", "exit status 4")
	must(t, s.Close())
}

// A logging program that does not end delays no exit, and is killed at last.
func TestStubbornLogger(t *testing.T) {
	uri, _ := loggerURI(t, "binary", "stubborn")
	s := open(t, Config{Stdout: uri})
	start(t, s)
	s.logger.grace = 50 * time.Millisecond
	must(t, run(t, s, "true").Wait())
	s.Exited()
	expectError(t, s.Drain(within(t, 50*time.Millisecond)), "logging program", context.DeadlineExceeded.Error())
	err := s.Close()
	expectError(t, err, "ignored SIGTERM", "killed")
	if again := s.Close(); !errors.Is(again, err) {
		t.Errorf("the second Close returns %v, the first %v", again, err)
	}
	receive(t, s.logger.done)
}

// A logging program ends with its session, even if the process does not.
func TestLoggerIsTerminated(t *testing.T) {
	uri, _ := loggerURI(t, "binary", "plain")
	s := open(t, Config{Stdout: uri})
	start(t, s)
	cmd := run(t, s, "sleep", "1000")
	must(t, s.Close())
	receive(t, s.logger.done)
	must(t, cmd.Process.Kill())
	cmd.Wait()
}

// If the logging program dies, the process notices, as with any pipe.
func TestDeadLogger(t *testing.T) {
	for _, script := range []string{"exec yes", "exec yes >&2"} {
		t.Run(script, func(t *testing.T) {
			uri, _ := loggerURI(t, "binary", "plain")
			s := open(t, Config{Stdout: uri})
			start(t, s)
			must(t, s.logger.cmd.Process.Kill())
			receive(t, s.logger.done)
			err := run(t, s, "timeout", "10", "sh", "-c", script).Wait()
			if err == nil || strings.Contains(err.Error(), "124") {
				t.Errorf("the process ends with %v", err)
			}
			expectError(t, s.Drain(within(t, patience)), "signal: killed")
			must(t, s.Close())
		})
	}
}

func TestLoggersLeakNothing(t *testing.T) {
	uri, _ := loggerURI(t, "binary", "plain")
	noLeaks(t, 50, func() {
		s := open(t, Config{Stdout: uri})
		start(t, s)
		finish(t, s, run(t, s, "true"))
		s = open(t, Config{Stdout: uri, Terminal: true})
		start(t, s)
		must(t, s.Close())
	})
}

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// suite is the test-suite as a program.
type suite struct {
	program string
	// dir is where the suite's test data lie.
	dir string
	env []string
	// names are all its tests, those on the top level.
	names []string
}

// newSuite asks the program for its tests.
func newSuite(ctx context.Context, s *surroundings) (*suite, error) {
	t := &suite{
		program: filepath.Join(s.tools, "client.test"),
		dir:     filepath.Join(s.tools, "src", "integration", "client"),
	}
	for _, e := range os.Environ() {
		if name, _, _ := strings.Cut(e, "="); !slices.Contains([]string{"PATH", "TMPDIR", "TEST_SNAPSHOTTER", "RUNC_FLAVOR"}, name) {
			t.env = append(t.env, e)
		}
	}
	t.env = append(t.env, "TMPDIR="+s.path("tmp"), "SSL_CERT_FILE="+s.path("ca.pem"), "IMAGE_LIST="+s.path("images.toml"),
		"CONTAINERD_SNAP_CONFIG="+s.path("snap.toml"))
	// With -test.short it starts no containerd.
	cmd := exec.CommandContext(ctx, t.program, "-test.short", "-test.list", ".")
	cmd.Dir, cmd.Env = t.dir, t.env
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list the suite's tests: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		// Fuzz targets are run on their seeds, benchmarks are not run.
		if name := strings.TrimSpace(line); strings.HasPrefix(name, "Test") || strings.HasPrefix(name, "Fuzz") {
			t.names = append(t.names, name)
		}
	}
	if len(t.names) == 0 {
		return nil, fmt.Errorf("list the suite's tests: %s names none", t.program)
	}
	return t, nil
}

// outcome is what a test ended with.
type outcome string

// The outcomes as the testing package prints them.
const (
	pass outcome = "PASS"
	fail outcome = "FAIL"
	skip outcome = "SKIP"
)

// ended matches the line that tells a test's end. With -test.v=test2json a
// control character precedes it, so that what a test prints cannot be taken for it.
var ended = regexp.MustCompile(`\x16 *--- (PASS|FAIL|SKIP): (\S+) \(`)

// parse reads the suite's output to its end, and calls each for every end of a test.
func parse(output io.Reader, each func(name string, o outcome)) error {
	r := bufio.NewReader(output)
	for {
		line, err := r.ReadString('\n')
		if m := ended.FindStringSubmatch(line); m != nil {
			each(m[2], outcome(m[1]))
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

const (
	// suiteTimeout bounds a run of the whole suite, which takes 100 s on two cores.
	suiteTimeout = 8 * time.Minute
	// endTimeout bounds how long an interrupted suite may clean up.
	endTimeout = 20 * time.Second
)

// run runs tests, each count times, with programs from path, and with runtime where
// they name none.
// What they print goes to log; each is called whenever a test or subtest ends. A test
// that fails is no error.
func (t *suite) run(ctx context.Context, path, runtime string, log io.Writer, tests []string, count int, each func(name string, o outcome)) error {
	timeout := time.Duration(count) * suiteTimeout
	args := []string{
		"-test.root", "-test.v=test2json", "-test.timeout", timeout.String(),
		"-test.count", strconv.Itoa(count),
		"-test.run", "^(" + strings.Join(tests, "|") + ")$",
	}
	ctx, cancel := context.WithTimeout(ctx, timeout+time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, t.program, args...)
	cmd.Dir = t.dir
	cmd.Env = append(slices.Clone(t.env), "PATH="+path, "TEST_RUNTIME="+runtime)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGTERM) }
	cmd.WaitDelay = endTimeout
	r, w := io.Pipe()
	both := io.MultiWriter(log, w)
	cmd.Stdout, cmd.Stderr = both, both
	parsed := make(chan error, 1)
	go func() { parsed <- parse(r, each) }()
	err := cmd.Run()
	w.Close()
	if err := <-parsed; err != nil {
		return fmt.Errorf("read the suite's output: %w", err)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("run the suite: %w", context.Cause(ctx))
	}
	if cmd.ProcessState == nil {
		return fmt.Errorf("run the suite: %w", err)
	}
	return nil
}

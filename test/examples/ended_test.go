package examples

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/test/harness"
	"github.com/containerd-snap/snap/test/harness/run"
)

// TestEnded ends examples in the middle: with containers about to start, and with a
// containerd and networks of its own. Each cleans up before it goes.
func TestEnded(t *testing.T) {
	n := startNode(t, "busybox", "redis")
	for example, after := range map[string]string{"redis-clones": "all at once", "migration": "carry the checkpoint"} {
		t.Run(example, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), deadline)
			defer cancel()
			path, err := filepath.Abs(filepath.Join("../../examples", example, "run"))
			if err != nil {
				t.Fatal(err)
			}
			script, out := n.Script(ctx, path), newListener(after)
			script.Stdout, script.Stderr = out, out
			if err := script.Start(); err != nil {
				t.Fatal(err)
			}
			pid := script.Process.Pid
			ended := make(chan error, 1)
			go func() { ended <- script.Wait() }()
			select {
			case err := <-ended:
				t.Fatalf("it ended by itself: %v: %s", err, out)
			case <-out.heard:
			}
			if had, err := of(pid); err != nil || len(had) == 0 {
				t.Errorf("it has nothing in the middle: %v", err)
			}
			if err := script.Process.Signal(unix.SIGTERM); err != nil {
				t.Fatal(err)
			}
			err = <-ended
			if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 128+int(unix.SIGTERM) {
				t.Errorf("it ended with %v: %s", err, out)
			}
			run.Eventually(t, func() error {
				left, err := of(pid)
				if err == nil && len(left) > 0 {
					err = fmt.Errorf("it left %q: %s", left, out)
				}
				return err
			})
			if left, err := n.Settle(ctx); err != nil || !left.Empty() {
				t.Errorf("left on the node: %s (%v)", left, err)
			}
			containers, err := n.Client().Containers(ctx)
			if err != nil || len(containers) > 0 {
				t.Errorf("left are %d containers: %v", len(containers), err)
			}
			if all, err := run.OpenStore(t, n).List(); err != nil || len(all) > 0 {
				t.Errorf("left are %d checkpoints: %v", len(all), err)
			}
		})
	}
}

// of lists what there is of an example: processes, mounts, network namespaces, cgroups and
// files, all of which have the names that examples/lib.sh gives them.
func of(pid int) ([]string, error) {
	unique, scratch := fmt.Sprintf("example-%d", pid), fmt.Sprintf("/tmp/example.%d.", pid)
	names := func(text string) bool { return strings.Contains(text, unique) || strings.Contains(text, scratch) }
	processes, err := harness.Processes()
	if err != nil {
		return nil, err
	}
	var found []string
	for _, p := range processes {
		if slices.ContainsFunc(slices.Concat(p.Args, p.Env, p.Cgroups), names) {
			found = append(found, p.String())
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(mounts)) {
		if names(line) {
			found = append(found, "mount "+line)
		}
	}
	for _, pattern := range []string{scratch + "*", "/run/netns/" + unique + "*", "/sys/fs/cgroup/" + unique, "/sys/fs/cgroup/*/" + unique, "/run/containerd/*/" + unique} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		found = append(found, files...)
	}
	return found, nil
}

// listener keeps what a script says, and closes heard when it has said a text.
type listener struct {
	text  string
	heard chan struct{}
	// mu guards the rest.
	mu   sync.Mutex
	said bytes.Buffer
	done bool
}

func newListener(text string) *listener { return &listener{text: text, heard: make(chan struct{})} }

func (l *listener) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.said.Write(p)
	if !l.done && strings.Contains(l.said.String(), l.text) {
		l.done = true
		close(l.heard)
	}
	return len(p), nil
}

func (l *listener) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.said.String()
}

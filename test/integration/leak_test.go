package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/shim/capture"
	"github.com/containerd-snap/snap/test/harness"
)

const (
	// cycles of a container's life in each of the leak tests; warmUp of them come
	// before the first count.
	cycles, warmUp = 100, 20
	// lives at once.
	workers = 2
)

// TestShimPerContainer runs many containers, each with a shim of its own:
// nothing may be left when they are gone.
func TestShimPerContainer(t *testing.T) {
	t.Parallel()
	n := newNode(t, harness.Options{})
	a := leakSource(t, n)
	runLives(t, a, 0, cycles, nil)
	a.Kill(unix.SIGKILL)
	a.Wait()
	a.DeleteTask()
	nothingLeft(t, n)
}

// TestPodShim runs many containers in one shim, which must not grow.
func TestPodShim(t *testing.T) {
	t.Parallel()
	n := newNode(t, harness.Options{})
	a := leakSource(t, n)
	shim := parent(t, a.Pid())
	runLives(t, a, 0, warmUp, nil)
	before := sizeOf(t, shim)
	runLives(t, a, warmUp, cycles, func(c *container) {
		if got := parent(t, c.Pid()); got != shim {
			t.Errorf("%s has a shim of its own: %d, that of the group is %d", c.ID(), got, shim)
		}
	})
	eventually(t, func() error {
		if now := sizeOf(t, shim); now.fds > before.fds || now.threads > before.threads+threadSlack || now.children > before.children || now.netns > before.netns {
			return fmt.Errorf("the shim has %+v after %d containers, had %+v after %d", now, cycles, before, warmUp)
		}
		return nil
	})
	a.Kill(unix.SIGKILL)
	a.Wait()
	a.DeleteTask()
	nothingLeft(t, n)
}

// threadSlack is by how many threads a shim may grow: Go starts one when all
// others are in system calls, which under load happens now and then, and keeps
// it. A thread lost with each container would be far more.
const threadSlack = (cycles - warmUp) / 8

const groupAnnotation = "io.containerd.runc.v2.group"

// leakSource starts the container that is captured for the others, and that
// keeps the group's shim alive.
func leakSource(t *testing.T, n *harness.Node) *container {
	t.Helper()
	a := start(t, n, grouped(t, "source", probeOf()))
	a.Probe()
	a.MustCapture(capture.Request{Name: "good"})
	return a
}

// grouped puts a container into the test's group: only TestPodShim has one.
func grouped(t *testing.T, id string, w want) want {
	t.Helper()
	w.ID = id
	if strings.HasPrefix(t.Name(), "TestPodShim") {
		w.Annotations = map[string]string{groupAnnotation: "pod"}
	}
	return w
}

// runLives lets containers live and die: booted, restored, fallen back, ended
// before their start, with exec'd processes and without.
func runLives(t *testing.T, a *container, from, to int, look func(*container)) {
	t.Helper()
	numbers := make(chan int)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := range numbers {
				if err := live(t, a, i, look); err != nil {
					t.Errorf("cycle %d: %v", i, err)
				}
			}
		})
	}
	for i := from; i < to && !t.Failed(); i++ {
		numbers <- i
	}
	close(numbers)
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// live is one cycle. It may run beside others.
func live(t *testing.T, a *container, i int, look func(*container)) (retErr error) {
	w := grouped(t, fmt.Sprintf("cycle%d", i), probeOf())
	wantOutcome := checkpoint.Restore
	kind := i % 5
	if kind == 0 {
		w = w.Annotate("restore", "Never")
		wantOutcome = checkpoint.Boot
	}
	c, err := makeContainer(t, a.Node, w)
	if err != nil {
		return err
	}
	defer func() {
		if err := c.Remove(); retErr == nil {
			retErr = err
		}
	}()
	if err := c.Create(w); err != nil {
		return err
	}
	switch kind {
	case 1: // ended before its start
		return nil
	case 2: // falls back
		if err := unix.Kill(criuOf(c, true), unix.SIGKILL); err != nil {
			return err
		}
		wantOutcome = checkpoint.Boot
	}
	if err := c.Task.Start(t.Context()); err != nil {
		return err
	}
	if look != nil {
		look(c)
	}
	r, err := c.RecordOf()
	if err != nil || r.Outcome != wantOutcome {
		return fmt.Errorf("outcome %s, want %s, %w: %+v", r.Outcome, wantOutcome, err, r)
	}
	if kind == 3 {
		if out := c.MustExec("echo", "in exec"); out != "in exec\n" {
			return fmt.Errorf("exec: %q", out)
		}
	}
	if kind == 4 {
		// It stays registered for the next cycles, which then restore from it.
		if _, err := c.Capture(capture.Request{Name: "good", Replace: true}); err != nil {
			return err
		}
	}
	if kind == 2 {
		if err := openStore(t, a.Node).Clear(r.Decision.Digest); err != nil {
			return err
		}
	}
	return nil
}

// size is what a shim holds.
type size struct{ fds, threads, children, netns int }

func sizeOf(t *testing.T, shim int) size {
	t.Helper()
	var s size
	var err error
	if s.fds, err = harness.CountFDs(shim); err != nil {
		t.Fatal(err)
	}
	if s.threads, err = harness.CountThreads(shim); err != nil {
		t.Fatal(err)
	}
	all, err := harness.Processes()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if p.PPID == shim {
			s.children++ // zombies, too
		}
	}
	links, err := filepath.Glob(filepath.Join("/proc", strconv.Itoa(shim), "fd", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil && strings.HasPrefix(to, "net:") {
			s.netns++
		}
	}
	return s
}

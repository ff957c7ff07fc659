package integration

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/shim/capture"
	"github.com/containerd-snap/snap/test/harness"
	"github.com/containerd-snap/snap/test/harness/run"
)

// pagers returns the pids of the pagers among the children of a shim.
func pagers(t *testing.T, shim int) []int {
	t.Helper()
	all, err := harness.Processes()
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, p := range all {
		if p.PPID == shim && slices.Contains(p.Args, "lazy-pages") {
			pids = append(pids, p.PID)
		}
	}
	return pids
}

// delivered waits until the task of c has all its pages: its pager has ended.
func delivered(c *container) {
	c.T.Helper()
	shim := parent(c.T, c.Pid())
	eventually(c.T, func() error {
		if left := pagers(c.T, shim); len(left) > 0 {
			return fmt.Errorf("the pager %v has not ended", left)
		}
		return nil
	})
	eventually(c.T, func() error {
		left, err := filepath.Glob(filepath.Join(c.Record().Bundle, "criu", "lazy-pages.[ps]*"))
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("the pager has left %s", left)
		}
		return err
	})
	if maps := smaps(c); strings.Contains(maps, " um") {
		c.T.Error("an area is still registered with userfaultfd")
	}
}

func smaps(c *container) string {
	c.T.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", c.Pid()))
	if err != nil {
		c.T.Fatal(err)
	}
	return string(maps)
}

// TestLazy: programs whose memory comes page by page find each byte of it: allocators of
// every kind, a tree of processes that go on to fork, and what was in the mapped form. They
// can be captured again, and nothing of the pager stays.
func TestLazy(t *testing.T) {
	t.Parallel()
	allocate := allocating(t, "/bin/allocate")
	for name, test := range map[string]struct {
		w    want
		form checkpoint.MemoryMode
	}{
		"glibc":             {allocate.Annotate("memory", "lazy"), checkpoint.MemoryCopy},
		"from mapped":       {allocate.Annotate("memory", "auto"), checkpoint.MemoryMapped},
		"Go":                {allocating(t, "/bin/allocate-go"), checkpoint.MemoryCopy},
		"jemalloc":          {preloaded(t, "jemalloc"), checkpoint.MemoryCopy},
		"tree":              {allocating(t, "/bin/fork").Annotate("memory", "lazy"), checkpoint.MemoryCopy},
		"tree, from mapped": {allocating(t, "/bin/fork").Annotate("memory", "auto"), checkpoint.MemoryMapped},
	} {
		t.Run(name, func(t *testing.T) {
			c := start(t, shared, test.w)
			rounds(t, c, 4)
			for range 2 {
				e := c.MustCapture(capture.Request{Stop: true})
				if m := e.Checkpoint.Memory; m.Form != test.form {
					t.Fatalf("the checkpoint's memory is %+v", m)
				}
				c = start(t, shared, test.w.Annotate("checkpoint", e.Digest).Annotate("memory", "lazy"))
				c.MustRestored(e)
				c.MustMemory(checkpoint.MemoryLazy, "memory=lazy was asked for")
				rounds(t, c, 10)
				delivered(c)
				test.form = checkpoint.MemoryCopy // as memory=lazy says at a capture
			}
		})
	}
}

// stalled starts a clone whose pager stands still with pages yet to deliver, and returns
// the pager's pid. It is stopped while it delivers what nobody asked for: before that it waits
// in epoll_wait(2), which CRIU takes for failed when its process is stopped and goes on.
func stalled(t *testing.T, n *harness.Node, w want) (*container, int) {
	t.Helper()
	for range 20 {
		c := create(t, n, w.Annotate("memory", "lazy"))
		all := pagers(t, parent(t, c.Pid()))
		if len(all) != 1 {
			t.Fatalf("a held restore has the pagers %v", all)
		}
		done := make(chan error, 1)
		go func() { done <- c.Task.Start(testContext(t)) }()
		eventuallySoon(t, func() bool { return run.UsageOf(t, c.Pid()).Anonymous > 8<<20 })
		err := unix.Kill(all[0], unix.SIGSTOP)
		if serr := <-done; serr != nil {
			t.Fatal(serr)
		}
		if err == nil && strings.Contains(smaps(c), " um") {
			return c, all[0]
		}
		// The pager was faster.
		if err := c.Remove(); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("the pager was always faster")
	return nil, 0
}

// eventuallySoon looks for what does not last.
func eventuallySoon(t *testing.T, seen func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); !seen(); {
		if time.Now().After(end) {
			t.Fatal("it did not come")
		}
	}
}

// held is a checkpoint of a program with 200 MB, and the program.
func held(t *testing.T) (want, checkpoint.Entry) {
	t.Helper()
	w := allocating(t, "/bin/hold").Annotate("memory", "lazy")
	c := start(t, shared, w)
	c.Out.WaitFor(t, "ok 0")
	return w, c.MustCapture(capture.Request{Stop: true})
}

// TestLazyMeanwhile: a task that waits for pages is like any other: others can run in it,
// it can be paused and killed; its capture waits until the memory is whole.
func TestLazyMeanwhile(t *testing.T) {
	t.Parallel()
	w, e := held(t)
	c, pager := stalled(t, shared, w)
	c.MustRestored(e)
	if p, err := harness.ReadProcess(pager); err != nil || !slices.Equal(p.Cgroups, mustRead(t, parent(t, c.Pid())).Cgroups) {
		t.Errorf("the pager is not in the shim's cgroup: %s (%v)", p.Cgroups, err)
	}
	if pids, err := c.Task.Pids(testContext(t)); err != nil || len(pids) != 1 {
		t.Errorf("processes %v (%v)", pids, err)
	}
	if out := c.MustExec("echo", "meanwhile"); strings.TrimSpace(out) != "meanwhile" {
		t.Errorf("%q", out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := capture.Call(ctx, c.Record().Address, capture.Request{ID: c.ID()})
	if err == nil {
		t.Error("a task was captured whose memory was not whole")
	}
	if err := c.Task.Pause(testContext(t)); err != nil {
		t.Fatal(err)
	}
	// A paused task gets its pages.
	if err := unix.Kill(pager, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	delivered(c)
	if err := c.Task.Resume(testContext(t)); err != nil {
		t.Fatal(err)
	}
	checked := func(c *container) {
		t.Helper()
		had := strings.Count(c.Out.String(), "ok")
		c.Kill(unix.SIGUSR1)
		rounds(t, c, 1)
		if got := strings.Count(c.Out.String(), "ok"); got != had+1 {
			t.Errorf("%d rounds, had %d", got, had)
		}
	}
	checked(c)
	again := c.MustCapture(capture.Request{Stop: true})
	second := start(t, shared, w.Annotate("checkpoint", again.Digest))
	second.MustRestored(again)
	checked(second)

	killed, _ := stalled(t, shared, w.Annotate("checkpoint", e.Digest))
	killed.Kill(unix.SIGUSR1) // it runs into a missing page
	killed.Kill(unix.SIGKILL)
	if got := killed.Wait(); got != 137 {
		t.Errorf("exit status %d", got)
	}
	killed.DeleteTask()

	abandoned := create(t, shared, w.Annotate("checkpoint", e.Digest))
	shim := parent(t, abandoned.Pid())
	left := pagers(t, shim)
	abandoned.Kill(unix.SIGKILL)
	abandoned.Wait()
	abandoned.DeleteTask()
	for _, pid := range left {
		eventually(t, func() error { return mustBeGone(pid) })
	}
}

func mustRead(t *testing.T, pid int) harness.Process {
	t.Helper()
	p, err := harness.ReadProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func mustBeGone(pid int) error {
	if err := unix.Kill(pid, 0); err == nil {
		return fmt.Errorf("process %d is still there", pid)
	}
	return nil
}

// TestPagerKilled: a task whose pager is killed before the memory is whole is killed, too,
// before it can read zeroes for what is missing, and the record says why.
func TestPagerKilled(t *testing.T) {
	t.Parallel()
	w, _ := held(t)
	for range 3 {
		c, pager := stalled(t, shared, w)
		c.Kill(unix.SIGUSR1) // it waits for its first missing page
		kill9(t, pager)
		if got := c.Wait(); got != 137 {
			t.Errorf("exit status %d", got)
		}
		if out := c.Out.String(); out != "" {
			t.Errorf("it went on: %q", out)
		}
		eventually(t, func() error {
			if r := c.Record(); !strings.Contains(r.MemoryReason, "the task was killed: the pager of memory=lazy ended before it had delivered all pages: signal: killed") {
				return errors.New(r.MemoryReason)
			}
			return nil
		})
		c.DeleteTask()
	}
}

// TestPagerOutlivesShim: the shim's death takes no page from a task; who cleans up after the
// shim ends the pager, also one that stands still.
func TestPagerOutlivesShim(t *testing.T) {
	t.Parallel()
	n := newNode(t, harness.Options{})
	w := want{Image: probeImage, Args: []string{"/bin/probe", "-memory", "192"}}
	a := start(t, n, w)
	before, bytes := a.Probe(), ballast(t, a.Pid())
	e := a.MustCapture(capture.Request{Stop: true})
	a.Wait()
	a.DeleteTask()
	for _, goesOn := range []bool{true, false} {
		c, pager := stalled(t, n, w)
		c.MustRestored(e)
		pid, shim := c.Pid(), parent(t, c.Pid())
		bounce(t, n, func() {
			kill9(t, shim)
			if !goesOn {
				return
			}
			eventually(t, func() error { return mustBeGone(shim) })
			if err := unix.Kill(pager, unix.SIGCONT); err != nil {
				t.Fatal(err)
			}
			eventually(t, func() error { return mustBeGone(pager) })
			if ballast(t, pid) != bytes {
				t.Error("the memory that came without a shim is not what it was")
			}
			c.GoesOn(before)
		})
		gone(t, c)
		eventually(t, func() error { return mustBeGone(pager) })
		nothingLeftByKilled(t, n)
	}
}

// ballast is a digest of what the probe's largest area holds in its middle, which
// the probe fills once.
func ballast(t *testing.T, pid int) [sha256.Size]byte {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	var from, size int64
	for line := range strings.Lines(string(maps)) {
		var a, b int64
		if _, err := fmt.Sscanf(line, "%x-%x rw-p 00000000 00:00 0", &a, &b); err == nil && b-a > size {
			from, size = a, b-a
		}
	}
	if size < 64<<20 {
		t.Fatalf("the largest area has %d bytes", size)
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(mem, from+16<<20, 32<<20)); err != nil {
		t.Fatal(err)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// TestLazyMusl: what CRIU's pager does not bear is copied.
func TestLazyMusl(t *testing.T) {
	t.Parallel()
	w := allocating(t, "/bin/allocate-musl").Annotate("memory", "lazy")
	c := start(t, shared, w)
	rounds(t, c, 2)
	e := c.MustCapture(capture.Request{Stop: true})
	clone := start(t, shared, w)
	clone.MustRestored(e)
	clone.MustMemory(checkpoint.MemoryCopy, "cannot be had: CRIU's pager does not bear how musl frees memory")
	rounds(t, clone, 10)
}

// TestLazyWithoutPager: where CRIU has no pager, the memory is copied, and the record tells.
func TestLazyWithoutPager(t *testing.T) {
	t.Parallel()
	installed, err := harness.Tool("criu")
	if err != nil {
		t.Fatal(err)
	}
	wrapper := filepath.Join(t.TempDir(), "criu")
	script := fmt.Sprintf("#!/bin/sh\n[ \"$1\" != lazy-pages ] || exit 1\nexec '%s' \"$@\"\n", installed)
	if err := os.WriteFile(wrapper, []byte(script), 0o755); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	n := newNode(t, harness.Options{CRIU: wrapper})
	w := big()
	a := start(t, n, w)
	before := a.Probe()
	e := a.MustCapture(capture.Request{})
	c := start(t, n, w.Annotate("memory", "lazy"))
	c.MustRestored(e)
	c.GoesOn(before)
	if r := c.Record(); r.Memory != checkpoint.MemoryCopy || !strings.Contains(r.MemoryReason, "memory=lazy was asked for, and cannot be had: the pager of CRIU does not come up") {
		t.Errorf("memory %s: %s", r.Memory, r.MemoryReason)
	}
}

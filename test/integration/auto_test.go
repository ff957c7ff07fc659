package integration

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/shim/capture"
	"github.com/containerd-snap/snap/test/harness"
)

// templates returns the templates that were captured from containers of this test.
func templates(t *testing.T, n *harness.Node) []checkpoint.Entry {
	t.Helper()
	return slices.DeleteFunc(entries(t, n), func(e checkpoint.Entry) bool { return e.Checkpoint.Kind != checkpoint.Template })
}

// entries returns the checkpoints of a node that were captured from containers of this test.
func entries(t *testing.T, n *harness.Node) []checkpoint.Entry {
	t.Helper()
	all, err := openStore(t, n).List()
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(all, func(e checkpoint.Entry) bool {
		return !strings.HasPrefix(e.Checkpoint.Source.Container, strings.ReplaceAll(t.Name(), "/", ".")+"-")
	})
}

// TestOnReady: the first container boots and is captured while it goes on, the next is a
// clone of it, and is not captured.
func TestOnReady(t *testing.T) {
	t.Parallel()
	w := probeOf().Annotate("capture", "OnReady")
	first := start(t, shared, w.Named(t, "first"))
	got := first.Captured()
	if got.Digest == "" || got.Error != "" || got.Mode != "OnReady" {
		t.Fatalf("the capture: %+v", got)
	}
	before := first.Probe()
	first.GoesOn(before)
	second := start(t, shared, w.Named(t, "second"))
	if r := second.Record(); r.Outcome != checkpoint.Restore || r.Decision.Digest != got.Digest {
		t.Errorf("the second start: %+v", r.Decision)
	}
	second.GoesOn(probeState{Token: before.Token})
	if r := second.Record(); r.Capture != nil {
		t.Errorf("a clone is to be captured: %+v", r.Capture)
	}
	if all := templates(t, shared); len(all) != 1 {
		t.Errorf("%d templates", len(all))
	}
}

// TestOnReadyRace starts many containers of one image at once, each with a shim of its
// own: one of them is captured, and all are well.
func TestOnReadyRace(t *testing.T) {
	t.Parallel()
	const many = 20
	cs := make([]*container, many)
	for i := range cs {
		cs[i] = newContainer(t, shared, probeOf().Annotate("capture", "OnReady").Named(t, strconv.Itoa(i)))
	}
	var wg sync.WaitGroup
	for _, c := range cs {
		wg.Go(func() {
			if err := c.Create(want{}); err != nil {
				t.Error(err)
				return
			}
			if err := c.Task.Start(testContext(t)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	captures, tokens := 0, map[string]int{}
	for _, c := range cs {
		s := c.Probe()
		c.GoesOn(s)
		tokens[s.Token]++
		if c.Record().Outcome == checkpoint.Restore {
			continue // it began after the capture
		}
		if got := c.Captured(); got.Digest != "" {
			captures++
		} else if got.Error != "" {
			t.Errorf("%s: %+v", c.ID(), got)
		}
	}
	if all := templates(t, shared); len(all) != 1 || captures != 1 {
		t.Errorf("%d templates after %d captures", len(all), captures)
	}
	if late := start(t, shared, probeOf().Annotate("capture", "OnReady").Named(t, "late")); late.Record().Outcome != checkpoint.Restore {
		t.Errorf("the next start: %+v", late.Record().Decision)
	}
}

// TestEvery keeps the newest resume points of a container, for itself.
func TestEvery(t *testing.T) {
	t.Parallel()
	w := probeOf().Annotate("capture", "Every=1s")
	c := start(t, shared, w.Named(t, "a"))
	before := c.Probe()
	seen := map[string]bool{}
	eventually(t, func() error {
		all := entries(t, shared)
		for _, e := range all {
			seen[e.Digest] = true
			if e.Checkpoint.Kind != checkpoint.ResumePoint || e.Checkpoint.Owner != shared.Namespace+"/container/"+c.ID() {
				t.Errorf("a %s of %s", e.Checkpoint.Kind, e.Checkpoint.Owner)
			}
		}
		if len(all) > 3 {
			t.Errorf("%d resume points", len(all)) // the new one before the old one goes
		}
		if len(seen) < 4 || len(all) != 2 {
			return fmt.Errorf("%d resume points so far, %d now", len(seen), len(all))
		}
		return nil
	})
	c.GoesOn(before)
	// Another container, whatever it has in common with it, has nothing of it.
	other := start(t, shared, w.Named(t, "b"))
	if r := other.Record(); r.Decision.Action != checkpoint.Boot || len(r.Decision.Verdicts) != 0 {
		t.Errorf("another container: %+v", r.Decision)
	}
	if s := other.Probe(); s.Token == before.Token {
		t.Error("another container started from the resume point")
	}
}

// TestReadyProbes captures programs that say in different ways that they are ready.
func TestReadyProbes(t *testing.T) {
	t.Parallel()
	const later = "sleep 0.3; echo so far; touch /go; echo up and running; sleep 1000"
	for name, w := range map[string]want{
		"exec":  shell(later).Annotate("ready", "exec:test -e /go"),
		"file":  shell(later).Annotate("ready", "file:/go"),
		"log":   shell(later).Annotate("ready", "log:^up and"),
		"delay": shell(later).Annotate("ready", "delay:700ms"),
		"tcp":   probeOf().Annotate("ready", "tcp://:7000"),
		"http": shell("mkdir /www; echo hello >/www/index.html; exec httpd -f -p 8000 -h /www").
			Annotate("ready", "http://:8000/index.html").Annotate("warm", "http://:8000/index.html*5"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := start(t, shared, w.Annotate("capture", "OnReady").Named(t, "a"))
			got := c.Captured()
			if got.Digest == "" || got.Error != "" {
				t.Fatalf("the capture: %+v", got)
			}
			e := entries(t, shared)[0]
			if since := e.Checkpoint.CreatedAt.Sub(c.Record().At); strings.HasPrefix(w.Args[len(w.Args)-1], "sleep") && since < 300*time.Millisecond {
				t.Errorf("captured %s after the start", since)
			}
			if c.Status() != client.Running {
				t.Errorf("the task is %s", c.Status())
			}
		})
	}
}

// TestCaptureFails: a program that is never ready goes on, and the next container with
// its fingerprint does not try again at once.
func TestCaptureFails(t *testing.T) {
	t.Parallel()
	w := probeOf().Annotate("capture", "OnReady")
	c := start(t, shared, w.Annotate("ready", "file:/never").Annotate("ready-timeout", "1s").Named(t, "a"))
	before := c.Probe()
	got := c.Captured()
	if !strings.Contains(got.Error, "not ready within ready-timeout, 1s") || !strings.Contains(got.Error, "/never") || got.NextTry.Before(time.Now()) {
		t.Errorf("the capture: %+v", got)
	}
	c.GoesOn(before)
	next := start(t, shared, w.Annotate("ready", "delay:1ms").Named(t, "b")).Captured()
	if next.Digest != "" || !strings.Contains(next.Outcome, "it failed 1 times in a row") || !next.NextTry.Equal(got.NextTry) {
		t.Errorf("the next capture: %+v", next)
	}
	if all := entries(t, shared); len(all) != 0 {
		t.Errorf("%d checkpoints", len(all))
	}
}

// TestEndedProgramIsForgotten: a program that came to its end begins anew.
func TestEndedProgramIsForgotten(t *testing.T) {
	t.Parallel()
	w := shell("touch /began; while ! test -e /end; do sleep 0.1; done").Annotate("capture", "Every=1s").Named(t, "a")
	c := start(t, shared, w)
	if got := c.Captured(); got.Digest == "" {
		t.Fatalf("the capture: %+v", got)
	}
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/root/end", c.Pid()), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if status := c.Wait(); status != 0 {
		t.Fatalf("status %d", status)
	}
	if all := entries(t, shared); len(all) != 0 {
		t.Errorf("%d resume points of a program that has ended", len(all))
	}
}

// TestCapturesExcludeOthers pauses, resumes and captures by hand a task that is captured
// every second.
func TestCapturesExcludeOthers(t *testing.T) {
	t.Parallel()
	c := start(t, shared, probeOf().Annotate("capture", "Every=1s").Named(t, "a"))
	before := c.Probe()
	first := c.MustCapture(capture.Request{Name: "by-hand"})
	for range 15 {
		if err := c.Task.Pause(testContext(t)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
		if err := c.Task.Resume(testContext(t)); err != nil {
			t.Fatal(err)
		}
		if e := c.MustCapture(capture.Request{Name: "by-hand", Replace: true}); e.Digest == first.Digest || e.Checkpoint.Kind != checkpoint.Template {
			t.Errorf("taken anew: %+v", e)
		}
		c.GoesOn(before)
	}
	if got := c.Captured(); got.Error != "" {
		t.Errorf("the last resume point: %+v", got)
	}
}

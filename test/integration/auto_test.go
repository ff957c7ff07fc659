package integration

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/containerd-snap/snap/checkpoint"
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
		return !strings.HasPrefix(e.Checkpoint.Source.Container, t.Name())
	})
}

// named gives a container a name that says of which test it is.
func (w want) named(t *testing.T, name string) want {
	w.id = t.Name() + "-" + name
	return w
}

// captured waits for the end of a capture that the shim takes by itself.
func (c *container) captured() checkpoint.Capture {
	c.t.Helper()
	var got checkpoint.Capture
	eventually(c.t, func() error {
		r, err := c.recordOf()
		if err != nil {
			return err
		}
		if r.Capture == nil || strings.HasPrefix(r.Capture.Outcome, "waits") {
			return fmt.Errorf("nothing was captured yet: %+v", r.Capture)
		}
		got = *r.Capture
		return nil
	})
	return got
}

// TestOnReady: the first container boots and is captured while it goes on, the next is a
// clone of it, and is not captured.
func TestOnReady(t *testing.T) {
	t.Parallel()
	w := probeOf().annotate("capture", "OnReady")
	first := start(t, shared, w.named(t, "first"))
	got := first.captured()
	if got.Digest == "" || got.Error != "" || got.Mode != "OnReady" {
		t.Fatalf("the capture: %+v", got)
	}
	before := first.probe()
	first.goesOn(before)
	second := start(t, shared, w.named(t, "second"))
	if r := second.record(); r.Outcome != checkpoint.Restore || r.Decision.Digest != got.Digest {
		t.Errorf("the second start: %+v", r.Decision)
	}
	second.goesOn(probeState{Token: before.Token})
	if r := second.record(); r.Capture != nil {
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
		cs[i] = newContainer(t, shared, probeOf().annotate("capture", "OnReady").named(t, strconv.Itoa(i)))
	}
	var wg sync.WaitGroup
	for _, c := range cs {
		wg.Go(func() {
			if err := c.create(want{}); err != nil {
				t.Error(err)
				return
			}
			if err := c.task.Start(testContext(t)); err != nil {
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
		s := c.probe()
		c.goesOn(s)
		tokens[s.Token]++
		if c.record().Outcome == checkpoint.Restore {
			continue // it began after the capture
		}
		if got := c.captured(); got.Digest != "" {
			captures++
		} else if got.Error != "" {
			t.Errorf("%s: %+v", c.ID(), got)
		}
	}
	if all := templates(t, shared); len(all) != 1 || captures != 1 {
		t.Errorf("%d templates after %d captures", len(all), captures)
	}
	if late := start(t, shared, probeOf().annotate("capture", "OnReady").named(t, "late")); late.record().Outcome != checkpoint.Restore {
		t.Errorf("the next start: %+v", late.record().Decision)
	}
}

// TestEvery keeps the newest resume points of a container, for itself.
func TestEvery(t *testing.T) {
	t.Parallel()
	w := probeOf().annotate("capture", "Every=1s")
	c := start(t, shared, w.named(t, "a"))
	before := c.probe()
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
	c.goesOn(before)
	// Another container, whatever it has in common with it, has nothing of it.
	other := start(t, shared, w.named(t, "b"))
	if r := other.record(); r.Decision.Action != checkpoint.Boot || len(r.Decision.Verdicts) != 0 {
		t.Errorf("another container: %+v", r.Decision)
	}
	if s := other.probe(); s.Token == before.Token {
		t.Error("another container started from the resume point")
	}
}

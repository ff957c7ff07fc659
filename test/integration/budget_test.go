package integration

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/shim/capture"
	"github.com/containerd-snap/snap/test/harness"
)

// mustHave checks that just these checkpoints are registered.
func mustHave(t *testing.T, n *harness.Node, want ...checkpoint.Entry) {
	t.Helper()
	all, err := openStore(t, n).List()
	if err != nil {
		t.Fatal(err)
	}
	digests := map[string]bool{}
	for _, e := range all {
		digests[e.Digest] = true
	}
	for _, e := range want {
		if !digests[e.Digest] {
			t.Errorf("%s %s is not registered", e.Digest, e.Name)
		}
	}
	if len(all) != len(want) {
		t.Errorf("%d checkpoints are registered, want %d", len(all), len(want))
	}
}

// TestBudgets: a capture holds the budgets of the host, pins and names stay, and
// snapctl prunes by the same rules.
func TestBudgets(t *testing.T) {
	t.Parallel()
	n := newNode(t, harness.Options{})
	configure(t, n, "[limits]\nper_image = 1\n")
	a := start(t, n, probeOf())
	before := a.Probe()
	pinned := a.MustCapture(capture.Request{})
	if _, err := n.Snapctl(testContext(t), "pin", pinned.Digest); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // before the checkpoint is removed
		if err := openStore(t, n).Unpin(pinned.Digest); err != nil {
			t.Error(err)
		}
	})
	named := a.MustCapture(capture.Request{Name: "named"})
	a.MustCapture(capture.Request{}) // goes with the next
	last := a.MustCapture(capture.Request{})
	mustHave(t, n, pinned, named, last)
	a.GoesOn(before)
	start(t, n, probeOf()).MustRestored(last)

	// One that is in use stays, though it should go; snapctl says so.
	release, err := openStore(t, n).Hold(named.Digest)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	out, err := n.Snapctl(testContext(t), "prune", "--max-age", "1ns")
	if err == nil || !strings.Contains(out.Stdout, "in use") || !strings.Contains(out.Stderr, "1 checkpoint had to stay") {
		t.Errorf("prune: %v: %s%s", err, out.Stdout, out.Stderr)
	}
	mustHave(t, n, pinned, named)
	release()
	var pruned struct {
		Removed []struct{ Name, Cause string }
	}
	snapctl(t, n, &pruned, "prune", "--max-bytes", "1KiB")
	if len(pruned.Removed) != 1 || pruned.Removed[0].Name != "named" || pruned.Removed[0].Cause != "bytes" {
		t.Errorf("prune: %+v", pruned)
	}
	mustHave(t, n, pinned)
	start(t, n, probeOf()).MustRestored(pinned)
}

// TestNoRoom: a capture for which there is no room is refused before the program
// stands still, with words, and leaves nothing.
func TestNoRoom(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		config string
		disk   string
		says   []string
	}{
		"on the disk":   {disk: "size=16m", says: []string{"MiB of memory", "has room for", "snapctl prune"}},
		"in the budget": {config: "[limits]\nmax_bytes = '16MiB'\n", says: []string{"limits.max_bytes", "16 MiB"}},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, harness.Options{})
			configure(t, n, c.config)
			if c.disk != "" {
				if err := os.Mkdir(n.StoreRoot, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
					t.Fatal(err)
				}
				tinyMount(t, n.StoreRoot, c.disk)
			}
			k := start(t, n, big())
			before := k.Probe()
			_, err := k.Capture(capture.Request{})
			if !errdefs.IsResourceExhausted(err) {
				t.Errorf("capture: %v", err)
			}
			for _, word := range c.says {
				if err != nil && !strings.Contains(err.Error(), word) {
					t.Errorf("%v lacks %q", err, word)
				}
			}
			k.GoesOn(before)
			storeIsEmpty(t, n)
		})
	}
}

// TestKilledCapturing kills shims at random moments of a capture that prunes: never
// half an entry, never a lost pin, and the next start goes as it should.
func TestKilledCapturing(t *testing.T) {
	t.Parallel()
	n := newNode(t, harness.Options{})
	configure(t, n, "[limits]\nper_image = 1\n")
	s := openStore(t, n)
	a := start(t, n, probeOf())
	pinned := a.MustCapture(capture.Request{})
	if err := s.Pin(pinned.Digest); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Unpin(pinned.Digest); err != nil {
			t.Error(err)
		}
	})
	for round := range 8 {
		k := start(t, n, probeOf().Annotate("restore", "Never"))
		k.Probe()
		shim := parent(t, k.Pid())
		done := make(chan error, 1)
		address := k.Record().Address
		go func() {
			_, err := capture.Call(testContext(t), address, capture.Request{ID: k.ID()})
			done <- err
		}()
		time.Sleep(time.Duration(rand.Int64N(int64(250 * time.Millisecond))))
		if err := unix.Kill(shim, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		<-done
		eventually(t, func() error {
			if _, err := k.Container.Task(t.Context(), nil); !errdefs.IsNotFound(err) {
				return fmt.Errorf("the task of the killed shim: %w", err)
			}
			return nil
		})
		if _, err := n.Snapctl(testContext(t), "prune"); err != nil {
			t.Error(err)
		}
		if e, err := s.Resolve(pinned.Digest); err != nil || !e.State.Pinned {
			t.Errorf("round %d: the pin is lost: %v", round, err)
		}
		if damaged, err := s.Damaged(); err != nil || len(damaged) > 0 {
			t.Errorf("round %d: damaged: %v, %v", round, damaged, err)
		}
		all, err := s.List()
		if err != nil || len(all) > 2 {
			t.Errorf("round %d: %d checkpoints, %v", round, len(all), err)
		}
		for _, e := range all {
			if err := s.Verify(testContext(t), e, nil); err != nil {
				t.Errorf("round %d: %v", round, err)
			}
		}
	}
	b := start(t, n, probeOf())
	if r := b.Record(); r.Outcome != checkpoint.Restore {
		t.Errorf("the start after: %+v", r.Decision)
	}
	all, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if e.Digest != pinned.Digest {
			if err := s.Remove(e.Digest); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestTagMoves: when an image's tag has moved on, the template of what it stood for goes
// with the capture of what it stands for now.
func TestTagMoves(t *testing.T) {
	t.Parallel()
	n := newNode(t, harness.Options{})
	a := start(t, n, probeOf())
	a.Probe()
	old := a.MustCapture(capture.Request{})
	kept := a.MustCapture(capture.Request{Name: "kept"})
	maker, err := harness.Tool("images")
	if err != nil {
		t.Fatal(err)
	}
	layer, archive := t.TempDir(), filepath.Join(t.TempDir(), "probe.tar")
	if err := os.WriteFile(filepath.Join(layer, "release"), []byte("2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(testContext(t), maker, "-o", archive, "-name", probeImage, "-from", images[len(images)-1], "-add", layer, "/bin/probe")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make the next release: %v: %s", err, out)
	}
	if err := n.Import(testContext(t), archive); err != nil {
		t.Fatal(err)
	}
	b := start(t, n, probeOf())
	b.MustBooted("no registered checkpoint")
	b.Probe()
	mustHave(t, n, old, kept)
	next := b.MustCapture(capture.Request{})
	mustHave(t, n, kept, next)
	start(t, n, probeOf()).MustRestored(next)
}

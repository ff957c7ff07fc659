package doctor

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/criu"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/fixture"
)

// run returns what the doctor finds, without the findings that depend on this machine.
func run(t *testing.T, node Node, opts Options) (Result, string) {
	t.Helper()
	r, err := Run(t.Context(), node, opts)
	if err != nil {
		t.Fatal(err)
	}
	shown := Result{}
	for _, c := range r.Checks {
		if c.Name != "store" || c.Level == Problem {
			shown.Checks = append(shown.Checks, c)
		}
	}
	var out bytes.Buffer
	if err := shown.Write(&out); err != nil {
		t.Fatal(err)
	}
	return r, out.String()
}

func TestHealthyStore(t *testing.T) {
	st := fixture.Store(t)
	fixture.Add(t, st, "web-ready", fixture.Checkpoint(0))
	fixture.Add(t, st, "", fixture.Checkpoint(time.Hour))
	for file, verify := range map[string]bool{"store-healthy.txt": false, "store-verified.txt": true} {
		var refs []string
		var last, total int64
		r, out := run(t, healthy(), Options{Root: st.Root(), Verify: verify, Progress: func(ref string, d, n int64) {
			refs = append(refs, ref)
			last, total = d, n
		}})
		if !r.OK {
			t.Errorf("a healthy node and store are not OK: %s", out)
		}
		fixture.Golden(t, file, st.Root(), out)
		if verify && (len(refs) < 2 || refs[0] == refs[len(refs)-1] || last != total || total == 0) {
			t.Errorf("progress of %v ended at %d of %d", refs, last, total)
		}
		if !verify && len(refs) > 0 {
			t.Errorf("progress of %v without Verify", refs)
		}
	}
}

func TestUnhealthyStore(t *testing.T) {
	st := fixture.Store(t)
	fixture.Add(t, st, "fine", fixture.Checkpoint(0))
	fixture.Fail(t, st, fixture.Add(t, st, "failing", fixture.Checkpoint(time.Hour)), 1)
	fixture.Fail(t, st, fixture.Add(t, st, "worn-out", fixture.Checkpoint(2*time.Hour)), checkpoint.QuarantineAfter)
	c := fixture.Checkpoint(3 * time.Hour)
	c.Host.Kernel = "6.19.0"
	fixture.Add(t, st, "from-elsewhere", c)
	fixture.Damage(t, fixture.Add(t, st, "torn", fixture.Checkpoint(4*time.Hour)), "images/core-1.img")
	fixture.Damage(t, fixture.Add(t, st, "lost", fixture.Checkpoint(5*time.Hour)), "manifest.json")
	fixture.Damage(t, fixture.Add(t, st, "rotten", fixture.Checkpoint(6*time.Hour)), "images/pages-1.img")
	for file, verify := range map[string]bool{"store-unhealthy.txt": false, "store-unhealthy-verified.txt": true} {
		r, out := run(t, healthy(), Options{Root: st.Root(), Verify: verify})
		if r.OK {
			t.Error("a damaged store is OK")
		}
		fixture.Golden(t, file, st.Root(), out)
	}
}

// TestUnfitOnlyWhereKnown holds that a missing CRIU is one finding, not one per checkpoint.
func TestUnfitOnlyWhereKnown(t *testing.T) {
	st := fixture.Store(t)
	fixture.Add(t, st, "web-ready", fixture.Checkpoint(0))
	n := healthy()
	n.CRIUErr, n.Facts.CRIU = criu.ErrNotInstalled, 0
	r, out := run(t, n, Options{Root: st.Root()})
	if r.OK || r.Count(Problem) != 1 || r.Count(Warning) > 1 { // a full disk is one of its own
		t.Errorf("found\n%s", out)
	}
}

func TestStoreThatCannotBeOpened(t *testing.T) {
	st := fixture.Store(t)
	if err := os.Chmod(st.Root(), 0o755); err != nil {
		t.Fatal(err)
	}
	r, out := run(t, healthy(), Options{Root: st.Root()})
	if r.OK {
		t.Error("a store that all may read is OK")
	}
	fixture.Golden(t, "store-open-to-all.txt", st.Root(), out)
}

func TestAbsentStore(t *testing.T) {
	root := filepath.Join(t.TempDir(), "store")
	r, err := Run(t.Context(), healthy(), Options{Root: root})
	if err != nil || !r.OK || r.Count(Warning) != 1 {
		t.Errorf("Run = %+v, %v", r, err)
	}
	if _, err := os.Stat(root); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("to look at a store made one: %v", err)
	}
}

func TestLeftovers(t *testing.T) {
	st := fixture.Store(t)
	alive, err := st.NewDraft()
	if err != nil {
		t.Fatal(err)
	}
	defer alive.Discard()
	if c := leftovers(st.Root()); c.Level != OK {
		t.Errorf("a draft that is being written is a leftover: %+v", c)
	}
	if err := os.Mkdir(filepath.Join(st.Root(), "drafts", "DEAD"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(st.Root(), "tmp", "FIFO"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c := leftovers(st.Root()); c.Level != Warning || c.Detail != "2 leftovers of killed processes" {
		t.Errorf("leftovers = %+v", c)
	}
	if n, err := st.Sweep(); err != nil || n != 2 {
		t.Errorf("Sweep = %d, %v: it disagrees", n, err)
	}
	if err := os.Remove(filepath.Join(st.Root(), "trash")); err != nil {
		t.Fatal(err)
	}
	if c := leftovers(st.Root()); c.Level != Problem {
		t.Errorf("leftovers without a directory = %+v", c)
	}
}

func TestJudgeSpace(t *testing.T) {
	const gib = 1 << 30
	for _, c := range []struct {
		free, total int64
		want        Level
	}{{50 * gib, 100 * gib, OK}, {gib - 1, 10 * gib, Warning}, {4 * gib, 100 * gib, Warning}, {5 * gib, 100 * gib, OK}, {0, 0, Warning}} {
		if got := judgeSpace("/s", c.free, c.total); got.Level != c.want {
			t.Errorf("judgeSpace(%d, %d) = %+v", c.free, c.total, got)
		}
	}
	if c := space(filepath.Join(t.TempDir(), "absent")); c.Level != Problem {
		t.Errorf("space of nothing = %+v", c)
	}
}

func TestInterrupted(t *testing.T) {
	st := fixture.Store(t)
	fixture.Add(t, st, "web-ready", fixture.Checkpoint(0))
	ctx, cancel := context.WithCancel(t.Context())
	_, err := Run(ctx, healthy(), Options{Root: st.Root(), Verify: true, Progress: func(string, int64, int64) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Run = %v, want %v", err, context.Canceled)
	}
	if _, err := Run(ctx, healthy(), Options{Root: st.Root()}); !errors.Is(err, context.Canceled) {
		t.Errorf("Run = %v, want %v", err, context.Canceled)
	}
}

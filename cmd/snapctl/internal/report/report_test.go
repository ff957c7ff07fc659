package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/retain"
	"github.com/containerd-snap/snap/checkpoint/store"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/fixture"
)

// now is when reports are written.
var now = fixture.Captured.Add(26 * time.Hour)

func newReport(t *testing.T) (*Report, *store.Store, *bytes.Buffer) {
	t.Helper()
	st, out := fixture.Store(t), &bytes.Buffer{}
	return &Report{Store: st, Out: out, Now: now, Host: &fixture.Host}, st, out
}

// populate registers a checkpoint in each state.
func populate(t *testing.T, st *store.Store) (ready checkpoint.Entry) {
	t.Helper()
	ready = fixture.Add(t, st, "web-ready", fixture.Checkpoint(0))
	if err := st.RecordSuccess(ready.Digest, now.Add(-5*time.Minute)); err != nil {
		t.Fatal(err)
	}
	fixture.Fail(t, st, fixture.Add(t, st, "", fixture.Checkpoint(time.Hour)), 1)
	fixture.Fail(t, st, fixture.Add(t, st, "worn-out", fixture.Checkpoint(2*time.Hour)), checkpoint.QuarantineAfter)
	c := fixture.Checkpoint(25 * time.Hour)
	c.Host.CPUFeatures = []string{"avx", "avx512f"}
	c.Source.Image = ""
	c.Source.Command = "sh -c 'printf \"\x1b[2J\"'\nrm -rf everything that lies around"
	fixture.Add(t, st, "from-elsewhere", c)
	fixture.Damage(t, fixture.Add(t, st, "lost", fixture.Checkpoint(3*time.Hour)), "manifest.json")
	ready, err := st.Resolve("web-ready")
	if err != nil {
		t.Fatal(err)
	}
	return ready
}

func TestList(t *testing.T) {
	r, st, out := newReport(t)
	if err := r.List(); err != nil {
		t.Fatal(err)
	}
	fixture.Golden(t, "ls-empty.txt", "", out.String())
	populate(t, st)
	out.Reset()
	if err := r.List(); err != nil {
		t.Fatal(err)
	}
	fixture.Golden(t, "ls.txt", "", out.String())
	out.Reset()
	if err := r.ListDigests(); err != nil {
		t.Fatal(err)
	}
	fixture.Golden(t, "ls-quiet.txt", "", out.String())
}

// TestStatusOfResumePoint: it is there for its owner, and so not unfit.
func TestStatusOfResumePoint(t *testing.T) {
	_, st, _ := newReport(t)
	c := fixture.Checkpoint(0)
	c.Kind, c.Owner = checkpoint.ResumePoint, "default/container/web"
	if got, why := Status(fixture.Add(t, st, "", c), &fixture.Host); got != Ready || why != "" {
		t.Errorf("status %s: %s", got, why)
	}
}

func TestListJSON(t *testing.T) {
	r, st, out := newReport(t)
	if damaged, err := r.ListJSON(); err != nil || damaged != 0 || out.String() != "[]\n" {
		t.Fatalf("ListJSON of an empty store = %d, %v and %q", damaged, err, out.String())
	}
	populate(t, st)
	out.Reset()
	damaged, err := r.ListJSON()
	if err != nil || damaged != 1 {
		t.Fatalf("ListJSON = %d, %v, want 1 damaged", damaged, err)
	}
	fixture.Golden(t, "ls.json", "", out.String())
	var entries []checkpoint.Entry
	if err := json.Unmarshal(out.Bytes(), &entries); err != nil || len(entries) != 4 {
		t.Fatalf("%d entries, %v, want 4", len(entries), err)
	}
}

func TestInspect(t *testing.T) {
	r, st, out := newReport(t)
	ready := populate(t, st)
	for file, ref := range map[string]string{
		"inspect-ready.txt":       ready.Digest[:20],
		"inspect-quarantined.txt": "worn-out",
		"inspect-unfit.txt":       "from-elsewhere",
	} {
		out.Reset()
		if err := r.Inspect(ref); err != nil {
			t.Fatal(err)
		}
		fixture.Golden(t, file, st.Root(), out.String())
	}
	out.Reset()
	if err := r.InspectJSON("web-ready"); err != nil {
		t.Fatal(err)
	}
	fixture.Golden(t, "inspect.json", "", out.String())
}

func TestInspectWithoutFingerprint(t *testing.T) {
	r, st, out := newReport(t)
	c := fixture.Checkpoint(0)
	c.Fingerprint = nil
	fixture.Add(t, st, "bare", c)
	if err := r.Inspect("bare"); err != nil {
		t.Fatal(err)
	}
	fixture.Golden(t, "inspect-bare.txt", st.Root(), out.String())
}

func TestErrors(t *testing.T) {
	r, st, out := newReport(t)
	populate(t, st)
	for ref, want := range map[string]error{
		"absent":  checkpoint.ErrNotFound,
		"a b":     checkpoint.ErrInvalid,
		"0123456": checkpoint.ErrNotFound,
		"lost":    checkpoint.ErrCorrupt,
	} {
		if err := r.Inspect(ref); !errors.Is(err, want) {
			t.Errorf("Inspect(%q) = %v, want %v", ref, err, want)
		}
		if err := r.InspectJSON(ref); !errors.Is(err, want) {
			t.Errorf("InspectJSON(%q) = %v, want %v", ref, err, want)
		}
	}
	if _, err := r.Explain("default", "absent"); !errors.Is(err, checkpoint.ErrNotFound) {
		t.Errorf("Explain = %v, want %v", err, checkpoint.ErrNotFound)
	}
	if out.Len() > 0 {
		t.Errorf("written in spite of the errors: %s", out)
	}
}

func TestCaptured(t *testing.T) {
	st := fixture.Store(t)
	for file, stopped := range map[string]bool{"captured.txt": false, "captured-stopped.txt": true} {
		var out bytes.Buffer
		if err := Captured(&out, fixture.Add(t, st, "web-ready", fixture.Checkpoint(0)), stopped); err != nil {
			t.Fatal(err)
		}
		fixture.Golden(t, file, "", out.String())
	}
}

// full is a writer on a full disk.
type full struct{}

var errFull = errors.New("no space")

func (full) Write([]byte) (int, error) { return 0, errFull }

func TestWriteErrors(t *testing.T) {
	r, st, _ := newReport(t)
	populate(t, st)
	fixture.Start(t, st, "web", nil)
	x, err := r.Explain("default", "web")
	if err != nil {
		t.Fatal(err)
	}
	r.Out = full{}
	for name, write := range map[string]func() error{
		"List":        r.List,
		"ListDigests": r.ListDigests,
		"ListJSON":    func() error { _, err := r.ListJSON(); return err },
		"Inspect":     func() error { return r.Inspect("web-ready") },
		"Explanation": func() error { return x.Write(r) },
	} {
		if err := write(); !errors.Is(err, errFull) {
			t.Errorf("%s to a full disk = %v, want %v", name, err, errFull)
		}
	}
}

func TestPrune(t *testing.T) {
	r, st, out := newReport(t)
	old := fixture.Add(t, st, "web-old", fixture.Checkpoint(0))
	held := fixture.Add(t, st, "", fixture.Checkpoint(time.Hour))
	fixture.Add(t, st, "", fixture.Checkpoint(25*time.Hour))
	release, err := st.Hold(held.Digest)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if err := r.Prune(NewPruning(nil, 0, false)); err != nil {
		t.Fatal(err)
	}
	out.WriteString("\n")
	for _, dryRun := range []bool{true, false} {
		pruned, err := st.Prune(t.Context(), retain.Limits{MaxAge: 24 * time.Hour}, now, dryRun)
		if err != nil || len(pruned) != 2 || pruned[0].Entry.Digest != old.Digest {
			t.Fatalf("%+v, %v", pruned, err)
		}
		p := NewPruning(pruned, 3, dryRun)
		if err := r.Prune(p); err != nil {
			t.Fatal(err)
		}
		out.WriteString("\n")
		if err := JSON(out, p); err != nil {
			t.Fatal(err)
		}
	}
	fixture.Golden(t, "prune.txt", "", out.String())
}

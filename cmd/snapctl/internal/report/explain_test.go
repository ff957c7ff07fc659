package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/dryrun"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/fixture"
)

func TestExplain(t *testing.T) {
	other := fixture.Checkpoint(0).Fingerprint
	other["env.FOO"] = "0123"
	other["args"] = `["python3"]`
	for name, c := range map[string]struct {
		start      func(*checkpoint.Start, checkpoint.Entry)
		registered bool
	}{
		"empty-store": {start: func(s *checkpoint.Start, _ checkpoint.Entry) { s.Fingerprint = nil }},
		"near-miss":   {start: func(s *checkpoint.Start, _ checkpoint.Entry) { s.Fingerprint = other }, registered: true},
		"since":       {start: func(*checkpoint.Start, checkpoint.Entry) {}, registered: true},
		"restored": {registered: true, start: func(s *checkpoint.Start, e checkpoint.Entry) {
			s.Decision = checkpoint.Decision{Action: checkpoint.Restore, Reason: "checkpoint web-ready fits", Digest: e.Digest, Name: e.Name,
				Verdicts: []checkpoint.Verdict{{Digest: e.Digest, Name: e.Name, Fits: true}}}
			s.Outcome = checkpoint.Restore
			s.Phases = []checkpoint.Phase{{Name: "identity", MS: 3.25}, {Name: "restore", MS: 1042}}
		}},
		"fallback": {registered: true, start: func(s *checkpoint.Start, e checkpoint.Entry) {
			s.Decision = checkpoint.Decision{Action: checkpoint.Restore, Reason: "checkpoint web-ready fits", Digest: e.Digest, Name: e.Name,
				Verdicts: []checkpoint.Verdict{{Digest: e.Digest, Name: e.Name, Fits: true}}}
			s.Fallback = "the image is of\nanother world"
		}},
		"of-a-captured-one": {registered: true, start: func(s *checkpoint.Start, e checkpoint.Entry) {
			s.Container = "web" // the one of which the checkpoints are
			s.Bundle = "testdata/bundle"
			s.Decision = checkpoint.Decision{Action: checkpoint.Boot, Reason: "checkpoint web-ready does not fit: quarantined",
				Verdicts: []checkpoint.Verdict{{Digest: e.Digest, Name: e.Name, Reason: "quarantined"}}}
			s.Memory, s.MemoryReason = checkpoint.MemoryMapped, "no program of the tree tells mapped memory from other"
			s.Capture = &checkpoint.Capture{
				Mode: "OnReady", At: now.Add(-time.Minute), Outcome: "it failed", Error: "a process uses io_uring", NextTry: now.Add(time.Minute),
			}
		}},
		"failed": {registered: true, start: func(s *checkpoint.Start, e checkpoint.Entry) {
			s.Decision = checkpoint.Decision{Action: checkpoint.Boot, Reason: "checkpoint web-ready does not fit: args differ", Demanded: true,
				Verdicts: []checkpoint.Verdict{{Digest: e.Digest, Name: e.Name, Reason: "args differ"}}}
			s.Error = "restore was asked for: args differ"
			s.PID = 0
			s.Phases = nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r, st, out := newReport(t)
			var e checkpoint.Entry
			if c.registered {
				e = fixture.Add(t, st, "web-ready", fixture.Checkpoint(0))
				strange := fixture.Checkpoint(time.Hour)
				strange.Fingerprint = checkpoint.Fingerprint{"image": "sha256:other", "cwd": "/"}
				fixture.Add(t, st, "", strange)
			}
			container := "web2"
			if name == "of-a-captured-one" {
				container = "web"
				fixture.Fail(t, st, e, checkpoint.QuarantineAfter)
			}
			fixture.Start(t, st, container, func(s *checkpoint.Start) { c.start(s, e) })
			x, err := r.Explain("default", container)
			if err != nil {
				t.Fatal(err)
			}
			if err := x.Write(r); err != nil {
				t.Fatal(err)
			}
			fixture.Golden(t, "explain-"+name+".txt", "", out.String())
			var raw bytes.Buffer
			if err := JSON(&raw, x); err != nil {
				t.Fatal(err)
			}
			fixture.Golden(t, "explain-"+name+".json", "", raw.String())
			var back map[string]json.RawMessage
			if err := json.Unmarshal(raw.Bytes(), &back); err != nil || back["nearMisses"][0] != '[' || back["captures"][0] != '[' {
				t.Errorf("JSON (%v) lacks an array: %s", err, raw.String())
			}
		})
	}
}

func TestExplainImage(t *testing.T) {
	const image = "registry.example/web:1"
	plain := fixture.Checkpoint(0).Fingerprint
	plain["args"] = `["python3"]`
	plan := &dryrun.Plan{
		Namespace: "default", Image: image, Args: []string{"python3"}, Fingerprint: plain,
		Decision: checkpoint.Decision{Action: checkpoint.Boot, Reason: "no registered checkpoint with this fingerprint"},
	}
	for name, c := range map[string]struct {
		image   Image
		nothing bool
	}{
		"known":         {image: Image{Namespace: "default", Name: image, Containers: []string{"web3"}, Plan: plan}},
		"no-containerd": {image: Image{Namespace: "default", Name: image, PlanErr: errors.New("containerd does not answer")}},
		"nothing":       {image: Image{Namespace: "default", Name: image, Plan: plan}, nothing: true},
	} {
		t.Run(name, func(t *testing.T) {
			r, st, out := newReport(t)
			if !c.nothing {
				e := fixture.Add(t, st, "web-ready", fixture.Checkpoint(0))
				other := fixture.Checkpoint(time.Hour)
				other.Source.Image, other.Fingerprint = "registry.example/other:1", checkpoint.Fingerprint{"image": "sha256:other"}
				fixture.Add(t, st, "other", other)
				fixture.Start(t, st, "web2", func(s *checkpoint.Start) {
					s.At = s.At.Add(time.Minute)
					s.Decision = checkpoint.Decision{Action: checkpoint.Restore, Digest: e.Digest, Reason: "checkpoint web-ready fits"}
					s.Outcome, s.Fingerprint = checkpoint.Restore, nil
				})
				fixture.Start(t, st, "web3", func(s *checkpoint.Start) { s.Fallback, s.Fingerprint = "the images are of another world", nil })
				fixture.Start(t, st, "stranger", func(s *checkpoint.Start) { s.Fingerprint = other.Fingerprint })
			}
			x, err := r.ExplainImage(c.image)
			if err != nil {
				t.Fatal(err)
			}
			if err := x.Write(r); err != nil {
				t.Fatal(err)
			}
			fixture.Golden(t, "image-"+name+".txt", "", out.String())
			var raw bytes.Buffer
			if err := JSON(&raw, x); err != nil {
				t.Fatal(err)
			}
			fixture.Golden(t, "image-"+name+".json", "", raw.String())
		})
	}
}

func TestDryRun(t *testing.T) {
	for name, change := range map[string]func(*dryrun.Plan, checkpoint.Entry){
		"boot": func(p *dryrun.Plan, _ checkpoint.Entry) { p.Fingerprint["args"] = `["python3"]` },
		"restore": func(p *dryrun.Plan, e checkpoint.Entry) {
			p.Decision = checkpoint.Decision{Action: checkpoint.Restore, Digest: e.Digest, Name: e.Name, Reason: "checkpoint web-ready fits",
				Verdicts: []checkpoint.Verdict{{Digest: e.Digest, Name: e.Name, Fits: true}}}
		},
		"refused":         func(p *dryrun.Plan, _ checkpoint.Entry) { p.Error = "invalid annotation" },
		"another-runtime": func(p *dryrun.Plan, _ checkpoint.Entry) { p.Container, p.Runtime = "web4", "io.containerd.runc.v2" },
	} {
		t.Run(name, func(t *testing.T) {
			r, st, out := newReport(t)
			e := fixture.Add(t, st, "web-ready", fixture.Checkpoint(0))
			p := dryrun.Plan{
				Namespace: "default", Image: "registry.example/web:1", Args: []string{"python3"}, Fingerprint: fixture.Checkpoint(0).Fingerprint,
				Decision: checkpoint.Decision{Action: checkpoint.Boot, Reason: "no registered checkpoint with this fingerprint"},
			}
			change(&p, e)
			x, err := r.DryRun(p)
			if err != nil {
				t.Fatal(err)
			}
			if err := x.Write(r); err != nil {
				t.Fatal(err)
			}
			fixture.Golden(t, "dry-run-"+name+".txt", "", out.String())
			var raw bytes.Buffer
			if err := JSON(&raw, x); err != nil {
				t.Fatal(err)
			}
			fixture.Golden(t, "dry-run-"+name+".json", "", raw.String())
		})
	}
}

func TestStatusWithoutHost(t *testing.T) {
	c := checkpoint.Entry{Digest: "sha256:0", Checkpoint: fixture.Checkpoint(0)}
	if got, why := Status(c, nil); got != Ready || why != "" {
		t.Errorf("Status = %s, %q", got, why)
	}
}

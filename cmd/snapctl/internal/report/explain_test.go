package report

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/containerd-snap/snap/checkpoint"
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
			fixture.Start(t, st, "web2", func(s *checkpoint.Start) { c.start(s, e) })
			x, err := r.Explain("default", "web2")
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
			if err := json.Unmarshal(raw.Bytes(), &back); err != nil || len(back) != 2 || back["nearMisses"][0] != '[' {
				t.Errorf("JSON has %d fields (%v), want start and nearMisses, an array", len(back), err)
			}
		})
	}
}

func TestStatusWithoutHost(t *testing.T) {
	c := checkpoint.Entry{Digest: "sha256:0", Checkpoint: fixture.Checkpoint(0)}
	if got, why := Status(c, nil); got != Ready || why != "" {
		t.Errorf("Status = %s, %q", got, why)
	}
}

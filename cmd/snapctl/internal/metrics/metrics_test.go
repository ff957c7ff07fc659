package metrics

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/retain"
	"github.com/containerd-snap/snap/checkpoint/tally"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/fixture"
)

// parse reads metrics as Prometheus and node_exporter do.
func parse(t *testing.T, text []byte) map[string]*dto.MetricFamily {
	t.Helper()
	p := expfmt.NewTextParser(model.LegacyValidation)
	families, err := p.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return families
}

// value returns the value of the one sample that has these labels, "name=value".
func value(t *testing.T, f *dto.MetricFamily, labels ...string) float64 {
	t.Helper()
	for _, m := range f.GetMetric() {
		have := map[string]bool{}
		for _, l := range m.GetLabel() {
			have[l.GetName()+"="+l.GetValue()] = true
		}
		all := len(have) == len(labels)
		for _, l := range labels {
			all = all && have[l]
		}
		if !all {
			continue
		}
		if h := m.GetHistogram(); h != nil {
			return float64(h.GetSampleCount())
		}
		return m.GetCounter().GetValue() + m.GetGauge().GetValue()
	}
	t.Errorf("%s has no sample with %q", f.GetName(), labels)
	return -1
}

func TestWrite(t *testing.T) {
	st := fixture.Store(t)
	fixture.Fail(t, st, fixture.Add(t, st, "web", fixture.Checkpoint(0)), checkpoint.QuarantineAfter)
	c := fixture.Checkpoint(time.Hour)
	c.Kind, c.Owner = checkpoint.ResumePoint, "default/container/web"
	point := fixture.Add(t, st, "", c)
	if err := st.Pin(point.Digest); err != nil {
		t.Fatal(err)
	}
	fixture.Damage(t, fixture.Add(t, st, "", fixture.Checkpoint(2*time.Hour)), "manifest.json")
	if err := st.Count(true, func(t *tally.Tally) {
		t.AddStart(checkpoint.Start{
			Decision: checkpoint.Decision{Action: checkpoint.Restore, Class: checkpoint.ClassFits}, Outcome: checkpoint.Restore,
			Phases: []checkpoint.Phase{{MS: 30}, {MS: 12.5}},
		})
		t.AddStart(checkpoint.Start{Error: "early"})
		t.AddCapture(checkpoint.ResumePoint, &point.Checkpoint, 400*time.Millisecond)
		t.AddPruned(retain.Idle, 1000)
		t.Quarantined++
	}); err != nil {
		t.Fatal(err)
	}
	n, err := Read(st, "v1 \"odd\\\n", retain.Limits{MaxBytes: 5 << 30})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "snap.prom")
	for range 2 { // anew, and over what is there
		if err := WriteFile(path, n); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("%v, %v", info, err)
	}
	if names, err := os.ReadDir(filepath.Dir(path)); err != nil || len(names) != 1 {
		t.Errorf("left beside it: %v, %v", names, err)
	}
	f := parse(t, text)
	size := float64(point.Checkpoint.Bytes())
	for _, w := range []struct {
		name   string
		labels []string
		want   float64
	}{
		{"snap_build_info", []string{"version=v1 \"odd\\\n"}, 1},
		{"snap_starts_total", []string{"decision=restore", "reason=fits", "outcome=restore"}, 1},
		{"snap_starts_total", []string{"decision=none", "reason=other", "outcome=failed"}, 1},
		{"snap_start_seconds", []string{"outcome=restore"}, 1},
		{"snap_start_seconds", []string{"outcome=boot"}, 0},
		{"snap_captures_total", []string{"kind=resume_point", "result=registered"}, 1},
		{"snap_captures_total", []string{"kind=template", "result=failed"}, 0},
		{"snap_capture_seconds", nil, 1},
		{"snap_capture_pause_seconds", nil, 1},
		{"snap_quarantined_total", nil, 1},
		{"snap_pruned_total", []string{"cause=idle"}, 1},
		{"snap_pruned_bytes_total", nil, 1000},
		{"snap_store_checkpoints", []string{"kind=template"}, 1},
		{"snap_store_bytes", []string{"kind=resume_point"}, size},
		{"snap_store_pinned", nil, 1},
		{"snap_store_quarantined", nil, 1},
		{"snap_store_damaged", nil, 1},
		{"snap_store_limit_bytes", nil, 5 << 30},
	} {
		if got := value(t, f[w.name], w.labels...); got != w.want {
			t.Errorf("%s%q is %v, want %v", w.name, w.labels, got, w.want)
		}
	}
	if free := value(t, f["snap_store_free_bytes"]); free <= 0 {
		t.Errorf("%v bytes are free", free)
	}
	for _, m := range f["snap_start_seconds"].GetMetric() {
		if h := m.GetHistogram(); h.GetSampleCount() == 1 && m.GetLabel()[0].GetValue() == "restore" {
			if h.GetSampleSum() != 0.0425 || h.GetBucket()[3].GetUpperBound() != 0.05 || h.GetBucket()[3].GetCumulativeCount() != 1 || h.GetBucket()[2].GetCumulativeCount() != 0 {
				t.Errorf("the histogram is %v", h)
			}
		}
	}
	documented(t, f)
}

// documented compares the metrics with those that docs/metrics.md lists.
func documented(t *testing.T, f map[string]*dto.MetricFamily) {
	t.Helper()
	doc, err := os.ReadFile("../../../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(snap_[a-z_]+)` \\| ([a-z]+) \\|").FindAllStringSubmatch(string(doc), -1) {
		listed[m[1]] = true
		if got := strings.ToLower(f[m[1]].GetType().String()); f[m[1]] != nil && got != m[2] {
			t.Errorf("docs/metrics.md says that %s is a %s, it is a %s", m[1], m[2], got)
		}
	}
	for name := range f {
		if !listed[name] {
			t.Errorf("docs/metrics.md does not list %s", name)
		}
	}
	if len(listed) != len(f) {
		t.Errorf("docs/metrics.md lists %d metrics, there are %d", len(listed), len(f))
	}
}

// A node on which nothing has happened yet has its metrics, too.
func TestWriteNothing(t *testing.T) {
	var out bytes.Buffer
	if err := Write(&out, Node{}); err != nil {
		t.Fatal(err)
	}
	if f := parse(t, out.Bytes()); value(t, f["snap_captures_total"], "kind=template", "result=registered") != 0 {
		t.Error("captures")
	}
	if err := WriteFile(filepath.Join(t.TempDir(), "no", "such.prom"), Node{}); err == nil {
		t.Error("wrote into a directory that does not exist")
	}
}

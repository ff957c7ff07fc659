package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd-snap/snap/test/measure"
)

func TestRatioOf(t *testing.T) {
	q := ratioOf([]float64{40, 90, 10, 7}, []float64{10, 10, 10})
	if q == nil || q.Median != 4 || q.Min != 1 || q.Max != 9 {
		t.Errorf("%+v", q)
	}
	for _, none := range [][2][]float64{{nil, {1}}, {{1}, nil}, {{1}, {0}}} {
		if q := ratioOf(none[0], none[1]); q != nil {
			t.Errorf("ratio of %v: %+v", none, q)
		}
	}
}

func TestSizeName(t *testing.T) {
	for mib, want := range map[int]string{64: "64m", 1000: "1000m", 1024: "1g", 4096: "4g"} {
		if got := sizeName(mib); got != want {
			t.Errorf("sizeName(%d) = %q, want %q", mib, got, want)
		}
	}
}

// sample are results as a run makes them.
func sample() *results {
	r := newResults(false)
	r.Host = measure.Host{CPUs: 2, CPU: "a processor", Kernel: "6.18"}
	p := &restore{Title: "Python: server", Runs: map[string][]float64{
		"cold": {5000}, "stock": {600, 500}, "copy": {160, 150}, "mapped": {100, 100}, "cold cache mapped": {300},
	}, Ratios: map[string]*ratio{}, ColdCache: map[string]*float64{}, Why: map[string]string{"lazy": "it is not offered"}}
	p.sum()
	r.Restore["python"] = p
	r.Boot = &bootResult{RuncMS: new(float64(100)), SnapMS: new(float64(80)), Ratio: &ratio{1.25, 1, 1.5}, Runc: &runtimeCosts{}, Snap: &runtimeCosts{}}
	r.Clones["20"] = &clones{P50MS: new(float64(200)), P95MS: new(float64(300)), SequenceP50MS: new(float64(100)), SequenceP95MS: new(float64(110)), AddedBytesPerClone: 12e6}
	for _, mib := range []int{smallSize, largeSize} {
		s := &scale{Runs: map[string]map[string][]float64{"mapped": {"0": {50}}, "copy": {"0": {float64(mib)}}}, TouchedMS: map[string]map[string]*float64{}}
		s.sum()
		r.Scale[sizeName(mib)] = s
		r.Capture[sizeName(mib)] = &capture{TotalMS: new(float64(500)), PauseMS: new(float64(100)), BytesWritten: int64(mib) << 20}
	}
	r.addPhase()
	r.Goals = r.goals()
	return r
}

func (r *results) addPhase() {
	r.Phases["a start"] = []phase{{Name: "spec", MS: 1.5}, {Name: "CRIU", MS: 1, Within: true}}
}

func TestGoals(t *testing.T) {
	want := []bool{true, true, true, false, true}
	for i, g := range sample().Goals {
		if g.Met == nil || *g.Met != want[i] {
			t.Errorf("%s: %s, met %v, want %t", g.What, g.Got, g.Met, want[i])
		}
	}
	for _, g := range newResults(false).goals() {
		if g.Met != nil || g.Got != "not measured" {
			t.Errorf("%s, of nothing: %s", g.What, g.Got)
		}
	}
}

func TestShow(t *testing.T) {
	const template = "../../docs/performance.md"
	doc, err := os.ReadFile(template)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "performance.md")
	if err := os.WriteFile(name, doc, 0o600); err != nil {
		t.Fatal(err)
	}
	r := sample()
	// Twice: what is written is found again.
	for range 2 {
		if err := r.show(name); err != nil {
			t.Fatal(err)
		}
	}
	shown, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| **not met** |", "| … CRIU | 1.0 |", "Python: server, lazy: it is not offered", "a processor", "5.50 (5.00 to 6.00)"} {
		if n := strings.Count(string(shown), want); n != 1 {
			t.Errorf("%q is there %d times", want, n)
		}
	}
	for _, plot := range []string{"restore", "scale", "clones", "capture"} {
		data, err := os.ReadFile(filepath.Join(strings.TrimSuffix(name, ".md"), plot+".svg"))
		if err != nil {
			t.Error(err)
			continue
		}
		if err := wellFormed(data); err != nil || !bytes.Contains(data, []byte("<path")) {
			t.Errorf("%s.svg: %v", plot, err)
		}
		if !strings.Contains(string(doc), "performance/"+plot+".svg") {
			t.Errorf("%s does not show %s.svg", template, plot)
		}
	}
}

func wellFormed(data []byte) error {
	for d := xml.NewDecoder(bytes.NewReader(data)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func TestReplace(t *testing.T) {
	for name, doc := range map[string]string{"no begin": "<!-- end of bench: x -->", "no end": "<!-- bench: x -->\n"} {
		if _, err := replace(doc, "x", "new\n"); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	got, err := replace("a\n<!-- bench: x -->\nold\n<!-- end of bench: x -->\nb\n", "x", "new\n")
	if err != nil || got != "a\n<!-- bench: x -->\nnew\n<!-- end of bench: x -->\nb\n" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestParse(t *testing.T) {
	s, err := parse([]string{"-quick", "-only", "boot,scale", "-programs", "python"})
	if err != nil || !s.quick || len(s.only) != 2 || s.programs[0] != "python" {
		t.Errorf("%+v, %v", s, err)
	}
	for _, wrong := range [][]string{{"-only", "boots"}, {"-programs", "cobol"}, {"more"}} {
		if _, err := parse(wrong); err == nil {
			t.Errorf("%v: no error", wrong)
		}
	}
}

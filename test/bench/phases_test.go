package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/test/measure"
)

// A restore.log as CRIU 4.2.1 writes it, but for what lies between.
const restoreLog = `(00.000000) CRIU run id = 1
(00.004000) mnt: Start with 153:/
(00.006000) Running setup-namespaces scripts
(00.006100) 	RPC
(00.050000)      1: Collecting 45/51 (flags 0)
(00.060000)      1: Preparing info about shared resources
(00.061000)      1: Restoring resources
(00.064000) Running post-restore scripts
(00.064500) Running pre-resume scripts
`

func TestReadCRIULog(t *testing.T) {
	name := filepath.Join(t.TempDir(), "restore.log")
	if err := os.WriteFile(name, []byte(restoreLog), 0o600); err != nil {
		t.Fatal(err)
	}
	spans := readCRIULog(name)
	for phase, want := range map[string][]float64{"hold": {6}, "restore": {10, 1, 3, 0.5}} {
		got := spans.of(phase)
		if len(got) != len(want) {
			t.Fatalf("%s: %+v", phase, got)
		}
		for i, p := range got {
			if round(p.MS) != want[i] || !p.Within {
				t.Errorf("%s, part %d: %+v, want %v ms", phase, i, p, want[i])
			}
		}
	}
	if spans := readCRIULog(name + ".none"); len(spans) != 0 {
		t.Errorf("of no log: %+v", spans)
	}
}

// Every millisecond of a start is in one phase.
func TestSplit(t *testing.T) {
	at := time.Now()
	r := checkpoint.Start{
		At:     at,
		Shim:   []checkpoint.Phase{{Name: "bootstrap", AtMS: -20, MS: 5}, {Name: "server", AtMS: -15, MS: 10}},
		Phases: []checkpoint.Phase{{Name: "spec", AtMS: 0, MS: 3}, {Name: "hold", AtMS: 3, MS: 10}, {Name: "restore", AtMS: 20, MS: 15}},
	}
	l := measure.Life{Began: at.Add(-50 * time.Millisecond), Took: 90 * time.Millisecond}
	want := []phase{
		{Name: phaseBefore, MS: 30}, {Name: "bootstrap", MS: 5}, {Name: "server", MS: 10}, {Name: phaseConnect, MS: 5},
		{Name: "spec", MS: 3}, {Name: "hold", MS: 10}, {Name: phaseBetween, MS: 7}, {Name: "restore", MS: 15}, {Name: phaseAnswer, MS: 5},
	}
	got := split(l, r, "")
	if len(got) != len(want) {
		t.Fatalf("%+v", got)
	}
	for i, p := range got {
		if p.Name != want[i].Name || round(p.MS) != want[i].MS {
			t.Errorf("phase %d: %+v, want %+v", i, p, want[i])
		}
	}
}

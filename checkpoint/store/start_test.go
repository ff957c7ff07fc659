package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/containerd-snap/snap/checkpoint"
)

func testStart(namespace, container string) checkpoint.Start {
	return checkpoint.Start{
		Namespace: namespace, Container: container, Bundle: "/run/b", ShimPID: 10, Address: "unix:///run/s", PID: 11, At: testTime,
		Decision:    checkpoint.Decision{Action: checkpoint.Restore, Reason: "it fits", Verdicts: []checkpoint.Verdict{{Digest: "sha256:0", Fits: true}}},
		Outcome:     checkpoint.Boot,
		Fallback:    "CRIU said no",
		Fingerprint: checkpoint.Fingerprint{"args": "x"},
		Phases:      []checkpoint.Phase{{Name: "decide", MS: 0.5}},
	}
}

func TestStartRecords(t *testing.T) {
	s := newStore(t)
	if _, err := s.Start("default", "a"); !errors.Is(err, checkpoint.ErrNotFound) || !strings.Contains(err.Error(), "no start is recorded") {
		t.Errorf("Start of an unknown container: %v", err)
	}
	a, b := testStart("default", "a"), testStart("k8s.io", "a")
	b.At = testTime.Add(time.Second)
	for _, r := range []checkpoint.Start{a, b} {
		if err := s.PutStart(r); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.Start("default", "a"); err != nil || !reflect.DeepEqual(got, a) {
		t.Errorf("Start = %+v, %v", got, err)
	}
	a.Outcome, a.Fallback = checkpoint.Restore, ""
	if err := s.PutStart(a); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Starts(); err != nil || !reflect.DeepEqual(got, []checkpoint.Start{b, a}) {
		t.Errorf("Starts = %+v, %v", got, err)
	}
	assertClean(t, s, 0)
}

func TestStartRecordsAreBounded(t *testing.T) {
	s := newStore(t)
	const n = keepStarts + slackStarts + 20
	for i := range n {
		r := testStart("default", fmt.Sprintf("c%d", i))
		r.At = testTime.Add(time.Duration(i) * time.Second)
		if err := s.PutStart(r); err != nil {
			t.Fatal(err)
		}
		// File systems may give many files one time: make the order plain.
		if err := os.Chtimes(s.path(startsDir, "default", r.Container+startExt), r.At, r.At); err != nil {
			t.Fatal(err)
		}
	}
	files, err := s.startFiles()
	if err != nil || len(files) > keepStarts+slackStarts {
		t.Errorf("%d records on disk, %v", len(files), err)
	}
	starts, err := s.Starts()
	if err != nil || len(starts) != keepStarts {
		t.Fatalf("%d starts, %v", len(starts), err)
	}
	for i, r := range starts {
		if want := fmt.Sprintf("c%d", n-1-i); r.Container != want {
			t.Fatalf("start %d is of %s, want %s", i, r.Container, want)
		}
	}
}

func TestStartRecordsAreNotBelieved(t *testing.T) {
	s := newStore(t)
	if err := s.PutStart(testStart("default", "good")); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(s.path(startsDir, "default", "good.json"))
	if err != nil {
		t.Fatal(err)
	}
	bad := func(name string) string { return s.path(startsDir, "default", name+startExt) }
	err = errors.Join(
		os.WriteFile(bad("torn"), raw[:len(raw)/2], 0o600),
		os.WriteFile(bad("of-another"), raw, 0o600),
		os.WriteFile(bad("huge"), []byte(strings.Repeat(" ", maxStart+1)), 0o600),
		os.Symlink("good.json", bad("link")),
		os.Mkdir(bad("dir"), 0o700),
		os.WriteFile(s.path(startsDir, "file"), raw, 0o600),
	)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"torn", "of-another", "huge", "link", "dir"} {
		if _, err := s.Start("default", id); err == nil || errors.Is(err, checkpoint.ErrNotFound) {
			t.Errorf("Start(%s): %v", id, err)
		}
	}
	if got, err := s.Starts(); err != nil || len(got) != 1 || got[0].Container != "good" {
		t.Errorf("Starts = %+v, %v", got, err)
	}
}

func TestStartNames(t *testing.T) {
	s := newStore(t)
	for _, name := range []string{"", ".", "..", "../x", "a/b", "/a", "a\x00", "-a", ".a", "a b", "ä", strings.Repeat("x", maxID+1)} {
		for _, r := range []checkpoint.Start{testStart(name, "a"), testStart("default", name)} {
			_, err := s.Start(r.Namespace, r.Container)
			for what, err := range map[string]error{"PutStart": s.PutStart(r), "Start": err} {
				if !errors.Is(err, checkpoint.ErrInvalid) {
					t.Errorf("%s(%.20q, %.20q): %v", what, r.Namespace, r.Container, err)
				}
			}
		}
	}
	for _, change := range []func(*checkpoint.Start){
		func(r *checkpoint.Start) { r.Outcome = "explode" },
		func(r *checkpoint.Start) { r.Decision.Action = "explode" },
		func(r *checkpoint.Start) { r.At = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
		func(r *checkpoint.Start) { r.Error = strings.Repeat("x", maxStart) },
	} {
		r := testStart("default", "a")
		change(&r)
		if err := s.PutStart(r); !errors.Is(err, checkpoint.ErrInvalid) {
			t.Errorf("PutStart: %v", err)
		}
	}
	if names, err := filepath.Glob(s.path(startsDir, "*", "*")); len(names) != 0 || err != nil {
		t.Errorf("left %q, %v", names, err)
	}
}

package checkpoint

import (
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestKeyIsInjective builds fingerprints that a careless encoding would confuse.
func TestKeyIsInjective(t *testing.T) {
	prints := []Fingerprint{
		nil,
		{"": ""},
		{"a": ""},
		{"": "a"},
		{"a": "b"},
		{"ab": ""},
		{"a": "b", "c": "d"},
		{"a": "bc", "d": ""},
		{"a": "b1:c1:d"},
		{"a1:b1:c": "d"},
		{"a": "d", "c": "b"},
		{"a": "1:b"},
		{"a1": ":b"},
		{"a": "\x00"},
		{"a\x00": ""},
		{"a": "\n"},
		{"a=b": "c"},
		{"a": "b=c"},
		{"a": strings.Repeat("x", 10)},
		{"a": strings.Repeat("x", 11)},
		{"a": "\xff"},
		{"a": "\xfe"},
	}
	seen := make(map[string]Fingerprint)
	for _, f := range prints {
		key := f.Key()
		if len(key) != 64 || strings.Trim(key, "0123456789abcdef") != "" {
			t.Errorf("%q has key %q", f, key)
		}
		if other, ok := seen[key]; ok {
			t.Errorf("%q and %q have one key", f, other)
		}
		seen[key] = f
	}
}

func TestKeyIsStable(t *testing.T) {
	f := Fingerprint{}
	for i := range 100 {
		f["env."+strconv.Itoa(i)] = strconv.Itoa(i)
	}
	want := f.Key()
	for range 20 { // maps are walked in another order each time
		if got := maps.Clone(f).Key(); got != want {
			t.Fatalf("key %s, then %s", want, got)
		}
	}
	// A key is on disk: it must not change from one version to the next.
	const golden = "48cfc4fe6b9211a6d0b0c2d278c4f7a7a909756e228072023db6d96eef954fc9"
	if got := (Fingerprint{"args": "sleep 1", "env.A": ""}).Key(); got != golden {
		t.Errorf("key %s, want %s", got, golden)
	}
}

func FuzzKey(f *testing.F) {
	f.Add("a", "b", "c", "d", "a", "b", "c", "d")
	f.Add("a", "b1:c", "", "", "a", "b", "1:c", "")
	f.Fuzz(func(t *testing.T, n1, v1, n2, v2, m1, w1, m2, w2 string) {
		a, b := Fingerprint{n1: v1, n2: v2}, Fingerprint{m1: w1, m2: w2}
		if equal := maps.Equal(a, b); (a.Key() == b.Key()) != equal {
			t.Errorf("%q and %q: equal %v, keys %s and %s", a, b, equal, a.Key(), b.Key())
		}
		if equal := maps.Equal(a, b); (len(a.Diff(b)) == 0) != equal {
			t.Errorf("%q and %q: equal %v, differ in %q", a, b, equal, a.Diff(b))
		}
	})
}

func TestFingerprintDiff(t *testing.T) {
	for _, tc := range []struct {
		name string
		a, b Fingerprint
		want []string
	}{
		{"nothing", nil, Fingerprint{}, nil},
		{"equal", Fingerprint{"a": "1", "b": ""}, Fingerprint{"a": "1", "b": ""}, nil},
		{"changed", Fingerprint{"a": "1", "b": "2"}, Fingerprint{"a": "1", "b": "3"}, []string{"b"}},
		{"absent is not empty", Fingerprint{"a": ""}, Fingerprint{}, []string{"a"}},
		{"sorted, of both sides", Fingerprint{"z": "1", "c": "1", "m": "1"}, Fingerprint{"a": "1", "m": "2"}, []string{"a", "c", "m", "z"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.a.Diff(tc.b); !slices.Equal(got, tc.want) {
				t.Errorf("Diff = %q, want %q", got, tc.want)
			}
			if got := tc.b.Diff(tc.a); !slices.Equal(got, tc.want) {
				t.Errorf("the other way round: %q, want %q", got, tc.want)
			}
		})
	}
}

func TestQuarantined(t *testing.T) {
	for failures, want := range map[int]bool{0: false, QuarantineAfter - 1: false, QuarantineAfter: true, QuarantineAfter + 1: true} {
		if got := (State{Failures: failures, Restores: 100}).Quarantined(); got != want {
			t.Errorf("after %d failures: %v, want %v", failures, got, want)
		}
	}
}

func TestBytes(t *testing.T) {
	c := Checkpoint{Files: []File{{Size: 1}, {Size: 20, Pages: true}}, Diff: Diff{Bytes: 300}}
	if c.ImagesBytes() != 21 || c.Bytes() != 321 {
		t.Errorf("%d bytes of images, %d in all", c.ImagesBytes(), c.Bytes())
	}
	if empty := (&Checkpoint{}).Bytes(); empty != 0 {
		t.Errorf("an empty checkpoint has %d bytes", empty)
	}
}

// TestJSON keeps the names that are on disk and in --json.
func TestJSON(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 5, time.UTC)
	e := Entry{
		Digest: "sha256:0", Name: "web", Dir: "/not/for/others",
		Checkpoint: Checkpoint{
			SchemaVersion: SchemaVersion, CreatedAt: at,
			Source:      Source{Namespace: "default", Container: "a", Image: "i", ImageDigest: "sha256:1", Command: "c", Processes: 1},
			Fingerprint: Fingerprint{"args": "x"},
			Host:        HostFacts{Arch: "amd64", Kernel: "6", CPUFeatures: []string{"avx"}, CRIU: 40201, Cgroup: "v2"},
			Files:       []File{{Path: "pages-1.img", Size: 1, SHA256: "2", Pages: true}},
			Diff:        Diff{Format: "overlay", Files: 1, Bytes: 2, SHA256: "3"},
			Timing:      Timing{PauseMS: 1.5, DumpMS: 1, DiffMS: 0.5},
		},
		State: State{Failures: 1, LastFailure: "r", LastUsed: at, Restores: 2},
	}
	raw, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	var back Entry
	if err := json.Unmarshal(raw, &back); err != nil {
		t.Fatal(err)
	}
	e.Dir = "" // never leaves the node
	if !reflect.DeepEqual(back, e) {
		t.Errorf("read back %+v, want %+v", back, e)
	}
	if raw, err := json.Marshal(State{}); err != nil || string(raw) != `{"failures":0,"restores":0}` {
		t.Errorf("a new state is %s, %v", raw, err)
	}
}

func TestErrorsAreDistinct(t *testing.T) {
	all := []error{ErrNotFound, ErrExists, ErrAmbiguous, ErrCorrupt, ErrInUse, ErrInvalid}
	for i, a := range all {
		for j, b := range all {
			if errors.Is(a, b) != (i == j) {
				t.Errorf("errors.Is(%v, %v)", a, b)
			}
		}
	}
}

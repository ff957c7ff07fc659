package store

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd-snap/snap/checkpoint"
)

func digests(entries []checkpoint.Entry) []string {
	var ds []string
	for _, e := range entries {
		ds = append(ds, e.Digest)
	}
	return ds
}

func TestNewestFirst(t *testing.T) {
	s := newStore(t)
	middle := mustRegister(t, s, testMeta("a", testTime.Add(time.Minute)), CommitOptions{})
	newest := mustRegister(t, s, testMeta("a", testTime.Add(time.Hour)), CommitOptions{})
	oldest := mustRegister(t, s, testMeta("a", testTime), CommitOptions{})
	other := mustRegister(t, s, testMeta("b", testTime.Add(time.Second)), CommitOptions{})

	got, err := s.Lookup(newest.Checkpoint.Fingerprint.Key())
	if want := []string{newest.Digest, middle.Digest, oldest.Digest}; err != nil || !slices.Equal(digests(got), want) {
		t.Errorf("Lookup = %q, %v; want %q", digests(got), err, want)
	}
	got, err = s.List()
	if want := []string{newest.Digest, middle.Digest, other.Digest, oldest.Digest}; err != nil || !slices.Equal(digests(got), want) {
		t.Errorf("List = %q, %v; want %q", digests(got), err, want)
	}
	if got, err := s.Lookup(strings.Repeat("0", 64)); len(got) != 0 || err != nil {
		t.Errorf("Lookup of an unknown key = %v, %v", got, err)
	}
	for _, key := range []string{"", "..", "../entries", strings.Repeat("A", 64)} {
		if _, err := s.Lookup(key); !errors.Is(err, checkpoint.ErrInvalid) {
			t.Errorf("Lookup(%q): %v", key, err)
		}
	}
}

func TestReadersPassOverHalfEntries(t *testing.T) {
	for _, tc := range []struct {
		name   string
		damage func(s *Store, e checkpoint.Entry) error
		want   error
	}{
		{"no manifest", func(_ *Store, e checkpoint.Entry) error { return os.Remove(filepath.Join(e.Dir, manifestName)) }, checkpoint.ErrCorrupt},
		{"torn manifest", func(_ *Store, e checkpoint.Entry) error {
			return os.Truncate(filepath.Join(e.Dir, manifestName), 10)
		}, checkpoint.ErrCorrupt},
		{"manifest is a link", func(_ *Store, e checkpoint.Entry) error {
			m := filepath.Join(e.Dir, manifestName)
			return errors.Join(os.Rename(m, e.Dir+".m"), os.Symlink(e.Dir+".m", m))
		}, checkpoint.ErrCorrupt},
		{"huge manifest", func(_ *Store, e checkpoint.Entry) error {
			return os.Truncate(filepath.Join(e.Dir, manifestName), maxManifest+1)
		}, checkpoint.ErrCorrupt},
		{"only the index is there", func(_ *Store, e checkpoint.Entry) error { return os.RemoveAll(e.Dir) }, checkpoint.ErrNotFound},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStore(t)
			good := mustRegister(t, s, testMeta("a", testTime), CommitOptions{})
			bad := mustRegister(t, s, testMeta("a", testTime), CommitOptions{Name: "bad"})
			if err := tc.damage(s, bad); err != nil {
				t.Fatal(err)
			}
			if got, err := s.Lookup(good.Checkpoint.Fingerprint.Key()); err != nil || !slices.Equal(digests(got), []string{good.Digest}) {
				t.Errorf("Lookup = %q, %v", digests(got), err)
			}
			if got, err := s.List(); err != nil || !slices.Equal(digests(got), []string{good.Digest}) {
				t.Errorf("List = %q, %v", digests(got), err)
			}
			for _, ref := range []string{"bad", bad.Digest} {
				e, err := s.Resolve(ref)
				if !errors.Is(err, tc.want) {
					t.Errorf("Resolve(%q): %v, want %v", ref, err, tc.want)
				}
				if errors.Is(tc.want, checkpoint.ErrCorrupt) && e.Digest != bad.Digest {
					t.Errorf("Resolve(%q) does not tell the digest", ref)
				}
			}
			if err := s.VerifyMetadata(bad); !errors.Is(err, tc.want) {
				t.Errorf("VerifyMetadata: %v, want %v", err, tc.want)
			}
			damaged, err := s.Damaged()
			if err != nil {
				t.Fatal(err)
			}
			if errors.Is(tc.want, checkpoint.ErrNotFound) {
				if len(damaged) != 0 {
					t.Errorf("Damaged = %v", damaged)
				}
				return
			}
			if len(damaged) != 1 || damaged[0].Digest != bad.Digest || !errors.Is(damaged[0].Err, tc.want) {
				t.Errorf("Damaged = %v", damaged)
			}
			if err := s.Remove(bad.Digest); err != nil {
				t.Errorf("Remove: %v", err)
			}
			if _, err := s.Resolve(bad.Digest); !errors.Is(err, checkpoint.ErrNotFound) {
				t.Errorf("Resolve after Remove: %v", err)
			}
		})
	}
}

func TestIndexIsNotBelieved(t *testing.T) {
	s := newStore(t)
	e := mustRegister(t, s, testMeta("a", testTime), CommitOptions{})
	other := checkpoint.Fingerprint{"args": "b"}.Key()
	if err := os.Mkdir(s.path(indexDir, other), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{e.Digest[7:], "../x", "junk"} {
		if err := os.WriteFile(s.path(indexDir, other, filepath.Base(name)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.Lookup(other); err != nil || len(got) != 0 {
		t.Errorf("Lookup = %q, %v: that entry has another fingerprint", digests(got), err)
	}
}

func TestResolve(t *testing.T) {
	s := newStore(t)
	e := mustRegister(t, s, testMeta("a", testTime), CommitOptions{Name: "web"})
	hex := e.Digest[7:]
	twin := "sha256-" + hex[:10] + strings.Repeat("0", 54)
	for _, tc := range []struct {
		ref  string
		want error
	}{
		{"web", nil},
		{e.Digest, nil},
		{hex, nil},
		{hex[:12], nil},
		{"sha256:" + hex[:12], nil},
		{hex[:7], checkpoint.ErrAmbiguous},
		{hex[:10], checkpoint.ErrAmbiguous},
		{"nothing", checkpoint.ErrNotFound},
		{"sha256:" + strings.Repeat("0", 64), checkpoint.ErrNotFound},
		{hex[:6], checkpoint.ErrNotFound}, // too short for a prefix, so a name
		{"sha256:" + hex[:6], checkpoint.ErrInvalid},
		{hex + "0", checkpoint.ErrInvalid},
		{"", checkpoint.ErrInvalid},
		{"../web", checkpoint.ErrInvalid},
		{"Web", checkpoint.ErrInvalid},
		{"sha512:" + hex, checkpoint.ErrInvalid},
	} {
		t.Run(tc.ref, func(t *testing.T) {
			if errors.Is(tc.want, checkpoint.ErrAmbiguous) {
				if err := os.Mkdir(s.path(entriesDir, twin), 0o700); err != nil {
					t.Fatal(err)
				}
				defer os.Remove(s.path(entriesDir, twin))
			}
			got, err := s.Resolve(tc.ref)
			if !errors.Is(err, tc.want) {
				t.Fatalf("Resolve: %v, want %v", err, tc.want)
			}
			if err == nil && got.Digest != e.Digest {
				t.Errorf("Resolve = %s", got.Digest)
			}
		})
	}
}

func TestNames(t *testing.T) {
	s := newStore(t)
	if err := s.CheckName("web"); err != nil {
		t.Errorf("CheckName of a free name: %v", err)
	}
	first := mustRegister(t, s, testMeta("a", testTime), CommitOptions{Name: "web"})
	err := s.CheckName("web")
	if !errors.Is(err, checkpoint.ErrExists) || !strings.Contains(err.Error(), "choose another name") {
		t.Errorf("CheckName of a taken name: %v", err)
	}
	d := newDraft(t, s)
	if err := fill(d); err != nil {
		t.Fatal(err)
	}
	meta := testMeta("a", testTime.Add(time.Second))
	if _, err := d.Commit(t.Context(), meta, CommitOptions{Name: "web"}); !errors.Is(err, checkpoint.ErrExists) {
		t.Errorf("Commit under a taken name: %v", err)
	}
	if entries, err := s.List(); len(entries) != 1 || err != nil {
		t.Errorf("a refused checkpoint is registered: %v, %v", digests(entries), err)
	}
	second, err := d.Commit(t.Context(), meta, CommitOptions{Name: "web", Replace: true})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.Resolve("web"); err != nil || got.Digest != second.Digest || got.Name != "web" {
		t.Errorf("Resolve = %+v, %v", got, err)
	}
	if got, err := s.Resolve(first.Digest); err != nil || got.Name != "" {
		t.Errorf("the first is still called %q, %v", got.Name, err)
	}
	if err := s.Remove(second.Digest); err != nil {
		t.Fatal(err)
	}
	if err := s.CheckName("web"); err != nil {
		t.Errorf("CheckName after Remove: %v", err)
	}
	assertClean(t, s, 1)
}

func TestCheckName(t *testing.T) {
	for name, ok := range map[string]bool{
		"a":                      true,
		"0":                      true,
		"web-1.2_x":              true,
		"cafe":                   true,
		"deadbe":                 true,
		"123456":                 true,
		"facade-1":               true,
		strings.Repeat("x", 128): true,
		strings.Repeat("x", 129): false,
		"":                       false,
		"deadbee":                false,
		"1234567":                false,
		strings.Repeat("a", 64):  false,
		"sha256-0":               false,
		"sha256:0":               false,
		".":                      false,
		"..":                     false,
		"-a":                     false,
		"_a":                     false,
		"a/b":                    false,
		"A":                      false,
		"a b":                    false,
		"a\x00":                  false,
		"ä":                      false,
		"\xff":                   false,
	} {
		if err := CheckName(name); (err == nil) != ok || (err != nil && !errors.Is(err, checkpoint.ErrInvalid)) {
			t.Errorf("CheckName(%.20q): %v, want ok %v", name, err, ok)
		}
	}
}

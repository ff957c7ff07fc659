package store

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd-snap/snap/checkpoint"
)

func FuzzManifest(f *testing.F) {
	meta := testMeta("x", testTime)
	meta.SchemaVersion = checkpoint.SchemaVersion
	meta.Files = []checkpoint.File{{Path: "core-1.img", Size: 1, SHA256: strings.Repeat("0", 64)}, {Path: "pages-1.img", Size: 2, SHA256: strings.Repeat("1", 64), Pages: true}}
	meta.Diff = checkpoint.Diff{Format: "overlay", SHA256: strings.Repeat("2", 64)}
	meta.Held = []checkpoint.HeldFile{{Path: "/data/x", Mount: "/data", Size: 77}}
	raw, err := encodeManifest(&meta)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	for old, hostile := range map[string]string{
		`"core-1.img"`:     `"../../etc/passwd"`,
		`"pages-1.img"`:    `"core-1.img"`,
		`"schemaVersion":`: `"schemaVersion": 2, "x":`,
		`"size": 2`:        `"size": 9223372036854775807`,
		`"overlay"`:        `"aufs"`,
		`2222`:             `zzzz`,
		`"/data/x"`:        `"/etc/passwd"`,
		`"/data/x",`:       `"/data/../etc/passwd",`,
		`"/data"`:          `""`,
	} {
		changed := strings.Replace(string(raw), old, hostile, 1)
		if _, err := decodeManifest([]byte(changed)); changed == string(raw) || !errors.Is(err, checkpoint.ErrInvalid) {
			f.Errorf("%s in place of %s: %v", hostile, old, err)
		}
		f.Add([]byte(changed))
	}
	f.Add([]byte("{}"))
	f.Add([]byte("null"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := decodeManifest(raw)
		if err != nil {
			if !errors.Is(err, checkpoint.ErrInvalid) {
				t.Fatalf("%v is no ErrInvalid", err)
			}
			return
		}
		for _, file := range c.Files {
			if !filepath.IsLocal(file.Path) || file.Path != filepath.Clean(file.Path) || file.Size < 0 {
				t.Fatalf("accepted file %+v", file)
			}
		}
		if c.Bytes() < 0 {
			t.Fatalf("size overflows: %d", c.Bytes())
		}
		again, err := encodeManifest(&c)
		if err != nil {
			t.Fatalf("cannot be written again: %v", err)
		}
		back, err := decodeManifest(again)
		if err != nil || back.Fingerprint.Key() != c.Fingerprint.Key() {
			t.Fatalf("changed by writing and reading: %v", err)
		}
	})
}

func FuzzState(f *testing.F) {
	f.Add([]byte(`{"failures":2,"lastFailure":"x","lastUsed":"2026-03-01T12:00:00Z","restores":4}`))
	f.Add([]byte(`{"failures":-1}`))
	f.Add([]byte(`{}{}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		st, err := decodeState(raw)
		if err != nil {
			if !errors.Is(err, checkpoint.ErrInvalid) || st != (checkpoint.State{}) {
				t.Fatalf("%+v, %v", st, err)
			}
			return
		}
		if st.Failures < 0 || st.Restores < 0 || len(st.LastFailure) > maxReason {
			t.Fatalf("accepted %+v", st)
		}
	})
}

func FuzzStart(f *testing.F) {
	raw, err := json.Marshal(testStart("default", "a"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(`{"namespace":"..","container":"../../etc/shadow"}`))
	f.Add([]byte(`{"namespace":"a","container":"b","outcome":"x"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := decodeStart(raw)
		if err != nil {
			if !errors.Is(err, checkpoint.ErrInvalid) || !reflect.DeepEqual(r, checkpoint.Start{}) {
				t.Fatalf("%+v, %v", r, err)
			}
			return
		}
		if path := filepath.Join(r.Namespace, r.Container+startExt); !filepath.IsLocal(path) || strings.Count(path, "/") != 1 {
			t.Fatalf("accepted %q and %q", r.Namespace, r.Container)
		}
		if _, err := json.Marshal(r); err != nil {
			t.Fatalf("cannot be written again: %v", err)
		}
	})
}

func FuzzCheckName(f *testing.F) {
	for _, seed := range []string{"web", "", "..", "a/b", "deadbeef", "sha256-0", "sha256:0", "a\x00b", "cafe"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if err := CheckName(name); err != nil {
			if !errors.Is(err, checkpoint.ErrInvalid) {
				t.Fatalf("%v is no ErrInvalid", err)
			}
			return
		}
		if !filepath.IsLocal(name) || filepath.Base(name) != name || len(name) > maxName || isHexPrefix(name) || strings.HasPrefix(name, "sha256") && strings.ContainsAny(name, ":") {
			t.Fatalf("accepted %q", name)
		}
	})
}

func FuzzResolve(f *testing.F) {
	s := newStore(f)
	e := mustRegister(f, s, testMeta("x", testTime), CommitOptions{Name: "web"})
	for _, seed := range []string{"web", e.Digest, e.Digest[7:], e.Digest[7:14], "sha256:", "../names/web", "", "\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, ref string) {
		got, err := s.Resolve(ref)
		switch {
		case err == nil:
			if got.Digest != e.Digest || ref != "web" && !strings.HasPrefix(e.Digest, ref) && !strings.HasPrefix(e.Digest[7:], ref) {
				t.Fatalf("%q stands for %s", ref, got.Digest)
			}
		case !errors.Is(err, checkpoint.ErrNotFound) && !errors.Is(err, checkpoint.ErrInvalid):
			t.Fatalf("Resolve(%q): %v", ref, err)
		}
	})
}

// FuzzPointers reads names, hints and index entries of any content: none may bring a
// reader out of the store, or make it fail.
func FuzzPointers(f *testing.F) {
	s := newStore(f)
	e := mustRegister(f, s, testMeta("x", testTime), CommitOptions{})
	f.Add([]byte(e.Digest + "\n"))
	f.Add([]byte("sha256:../../../etc"))
	f.Add([]byte("web"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		if err := errors.Join(
			os.WriteFile(s.path(namesDir, "web"), raw, 0o600),
			os.WriteFile(s.path(stateDir, e.Digest[7:]+".name"), raw, 0o600),
		); err != nil {
			t.Fatal(err)
		}
		got, err := s.Resolve("web")
		if err == nil && got.Digest != e.Digest || err != nil && !errors.Is(err, checkpoint.ErrNotFound) {
			t.Fatalf("Resolve = %s, %v", got.Digest, err)
		}
		if entries, err := s.List(); err != nil || len(entries) != 1 {
			t.Fatalf("List = %v, %v", entries, err)
		}
	})
}

package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd-snap/snap/checkpoint"
)

// TestSweepAfterCrash builds what a crash leaves at each step, one by one: readers must
// not see it, names must not be taken by it, and Sweep must delete it.
func TestSweepAfterCrash(t *testing.T) {
	hex := strings.Repeat("ab", 32)
	key := checkpoint.Fingerprint{"args": "gone"}.Key()
	write := func(elem ...string) func(*Store) error {
		return func(s *Store) error {
			path := s.path(elem...)
			return errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte("sha256:"+hex+"\n"), 0o600))
		}
	}
	for _, tc := range []struct {
		name  string
		leave func(*Store) error
		want  int
	}{
		{"temporary file", write(tmpDir, "x"), 1},
		{"draft", write(draftsDir, "x", imagesName, "core-1.img"), 1},
		{"empty draft", func(s *Store) error { return os.Mkdir(s.path(draftsDir, "x"), 0o700) }, 1},
		{"removed entry", write(trashDir, "x", imagesName, "core-1.img"), 1},
		{"index and its key", write(indexDir, key, hex), 2},
		{"key without index", func(s *Store) error { return os.Mkdir(s.path(indexDir, key), 0o700) }, 1},
		{"name", write(namesDir, "web"), 1},
		{"name torn by a power cut", func(s *Store) error { return os.WriteFile(s.path(namesDir, "web"), nil, 0o600) }, 1},
		{"name that is a link", func(s *Store) error { return os.Symlink("/etc/passwd", s.path(namesDir, "web")) }, 1},
		{"state", write(stateDir, hex+".json"), 1},
		{"hint", write(stateDir, hex+".name"), 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStore(t)
			e := mustRegister(t, s, testMeta("x", testTime), CommitOptions{Name: "kept"})
			if err := tc.leave(s); err != nil {
				t.Fatal(err)
			}
			if got, err := s.Lookup(key); err != nil || len(got) != 0 {
				t.Errorf("Lookup = %q, %v", digests(got), err)
			}
			if got, err := s.List(); err != nil || len(got) != 1 || got[0].Digest != e.Digest {
				t.Errorf("List = %q, %v", digests(got), err)
			}
			for _, ref := range []string{"web", "sha256:" + hex} {
				if _, err := s.Resolve(ref); !errors.Is(err, checkpoint.ErrNotFound) {
					t.Errorf("Resolve(%s): %v", ref, err)
				}
			}
			if err := s.CheckName("web"); err != nil {
				t.Error(err)
			}
			if n, err := s.Sweep(); n != tc.want || err != nil {
				t.Errorf("Sweep = %d, %v; want %d", n, err, tc.want)
			}
			assertClean(t, s, 1)
			if err := s.Verify(t.Context(), e, nil); err != nil {
				t.Error(err)
			}
			if got, err := s.Resolve("kept"); err != nil || got.Digest != e.Digest {
				t.Errorf("Resolve = %q, %v", got.Digest, err)
			}
		})
	}
}

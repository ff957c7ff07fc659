package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
)

func TestVerifyNamesTheDamage(t *testing.T) {
	write := func(name, content string) func(dir string) error {
		return func(dir string) error { return os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600) }
	}
	rm := func(name string) func(dir string) error {
		return func(dir string) error { return os.RemoveAll(filepath.Join(dir, name)) }
	}
	truncate := func(name string, size int64) func(dir string) error {
		return func(dir string) error { return os.Truncate(filepath.Join(dir, name), size) }
	}
	symlink := func(name string) func(dir string) error {
		return func(dir string) error {
			p := filepath.Join(dir, name)
			return errors.Join(os.Rename(p, filepath.Join(filepath.Dir(dir), "aside")), os.Symlink("../../aside", p))
		}
	}
	flip := func(name string) func(dir string) error {
		return func(dir string) error {
			p := filepath.Join(dir, name)
			raw, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			raw[len(raw)/2] ^= 1
			return os.WriteFile(p, raw, 0o600)
		}
	}
	for _, tc := range []struct {
		name   string
		damage func(dir string) error
		want   string
		// full: only the complete check can see it.
		full bool
	}{
		{"manifest missing", rm("manifest.json"), "manifest.json: missing", false},
		{"manifest changed", flip("manifest.json"), "manifest.json: its digest differs", false},
		{"manifest is a directory", func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, "manifest.json")), os.Mkdir(filepath.Join(dir, "manifest.json"), 0o700))
		}, "manifest.json: open", false},
		{"image missing", rm("images/core-1.img"), "images/core-1.img: missing", false},
		{"nested image missing", rm("images/mapped"), "images/mapped/big-1.img: missing", false},
		{"image truncated", truncate("images/core-1.img", 5), "images/core-1.img: truncated: 5 of 13 bytes", false},
		{"image longer", truncate("images/core-1.img", 15), "images/core-1.img: 15 bytes instead of 13", false},
		{"image changed", flip("images/core-1.img"), "images/core-1.img: its digest differs", false},
		{"image is a link", symlink("images/core-1.img"), "images/core-1.img: it is a symbolic link", false},
		{"image is a directory", func(dir string) error {
			return errors.Join(rm("images/core-1.img")(dir), os.Mkdir(filepath.Join(dir, "images/core-1.img"), 0o700))
		}, "not a regular file", false},
		{"unexpected image", write("images/ids-9.img", "x"), "images/ids-9.img: it is not listed", false},
		{"unexpected link", func(dir string) error { return os.Symlink("/", filepath.Join(dir, "images/parent")) }, "images/parent: it is not listed", false},
		{"unexpected beside", write("spec.json", "{}"), `unexpected "spec.json"`, false},
		{"images missing", rm("images"), "images is missing", false},
		{"images is a link", symlink("images"), "images", false},
		{"pages missing", rm("images/pages-1.img"), "images/pages-1.img: missing", false},
		{"pages truncated", truncate("images/pages-1.img", 100), "images/pages-1.img: truncated: 100 of 22000 bytes", false},
		{"pages changed", flip("images/pages-1.img"), "images/pages-1.img: its digest differs", true},
		{"diff missing", rm("diff"), "diff is missing", false},
		{"diff is a link", symlink("diff"), "diff", false},
		{"diff emptied", func(dir string) error {
			return errors.Join(rm("diff")(dir), os.Mkdir(filepath.Join(dir, "diff"), 0o700))
		}, "diff: it is empty, the manifest lists 5 files", false},
		{"diff lost a file", rm("diff/app"), "diff: 4 files with 4 bytes instead of 5 with 4", true},
		{"diff changed", flip("diff/var/lib/app/data"), "diff: the digest of the tree differs", true},
		{"diff has another mode", func(dir string) error { return os.Chmod(filepath.Join(dir, "diff/var"), 0o777) }, "diff: the digest of the tree differs", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStore(t)
			e := mustRegister(t, s, testMeta("x", testTime), CommitOptions{})
			if err := tc.damage(e.Dir); err != nil {
				t.Fatal(err)
			}
			check := func(what string, err error, wanted bool) {
				if !wanted {
					if err != nil {
						t.Errorf("%s: %v", what, err)
					}
					return
				}
				if !errors.Is(err, checkpoint.ErrCorrupt) || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), e.Digest) {
					t.Errorf("%s: %v, want %q", what, err, tc.want)
				}
			}
			check("VerifyMetadata", s.VerifyMetadata(e), !tc.full)
			check("Verify", s.Verify(t.Context(), e, nil), true)
		})
	}
}

func TestVerifyReportsProgress(t *testing.T) {
	s := newStore(t)
	e := mustRegister(t, s, testMeta("x", testTime), CommitOptions{})
	var last, total int64
	err := s.Verify(t.Context(), e, func(done, all int64) {
		if done <= last {
			t.Errorf("progress from %d to %d", last, done)
		}
		last, total = done, all
	})
	if err != nil || last != total || total != e.Checkpoint.Bytes() {
		t.Errorf("read %d of %d bytes, of a checkpoint of %d: %v", last, total, e.Checkpoint.Bytes(), err)
	}
}

func TestVerifyHeedsContext(t *testing.T) {
	s := newStore(t)
	e := mustRegister(t, s, testMeta("x", testTime), CommitOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := s.Verify(ctx, e, nil)
	if !errors.Is(err, context.Canceled) || errors.Is(err, checkpoint.ErrCorrupt) {
		t.Errorf("Verify: %v", err)
	}
}

func TestVerifyTellsDamageFromLack(t *testing.T) {
	for _, tc := range []struct {
		err     error
		corrupt bool
	}{
		{unix.EIO, true},
		{unix.ENOENT, true},
		{unix.EMFILE, false},
		{unix.ENOMEM, false},
		{context.DeadlineExceeded, false},
	} {
		got := damage("images/core-1.img", &os.PathError{Op: "read", Path: "x", Err: tc.err})
		if errors.Is(got, checkpoint.ErrCorrupt) != tc.corrupt || !strings.Contains(got.Error(), "images/core-1.img") {
			t.Errorf("damage(%v) = %v", tc.err, got)
		}
	}
}

func TestVerifyWithoutEntry(t *testing.T) {
	s := newStore(t)
	for digest, want := range map[string]error{
		"":                                  checkpoint.ErrInvalid,
		"sha256:../../x":                    checkpoint.ErrInvalid,
		"sha256:" + strings.Repeat("0", 64): checkpoint.ErrNotFound,
	} {
		e := checkpoint.Entry{Digest: digest}
		_, failure := s.RecordFailure(digest, "x")
		_, hold := s.Hold(digest)
		for what, err := range map[string]error{
			"VerifyMetadata": s.VerifyMetadata(e),
			"Verify":         s.Verify(t.Context(), e, nil),
			"RecordFailure":  failure,
			"RecordSuccess":  s.RecordSuccess(digest, testTime),
			"Clear":          s.Clear(digest),
			"Hold":           hold,
			"Remove":         s.Remove(digest),
		} {
			if !errors.Is(err, want) {
				t.Errorf("%s(%q): %v, want %v", what, digest, err, want)
			}
		}
	}
	assertClean(t, s, 0)
}

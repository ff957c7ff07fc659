package criu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd-snap/snap/checkpoint"
)

// fakeCRIU is a program that prints out and counts its runs in the file that it returns.
func fakeCRIU(t *testing.T, out string) (Binary, string) {
	t.Helper()
	dir := t.TempDir()
	runs := filepath.Join(dir, "runs")
	script := fmt.Sprintf("#!/bin/sh\necho run >>%s\ncat <<'END'\n%s\nEND\n", runs, out)
	path := filepath.Join(dir, program)
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return Binary{Path: path}, runs
}

func countRuns(t *testing.T, runs string) int {
	t.Helper()
	data, err := os.ReadFile(runs)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.Count(string(data), "run")
}

func TestFind(t *testing.T) {
	b, _ := fakeCRIU(t, "Version: 4.1")
	t.Setenv("PATH", filepath.Dir(b.Path))
	if got, err := Find(); err != nil || got.Path != b.Path {
		t.Errorf("got %+v, %v", got, err)
	}
	t.Setenv("PATH", "/nowhere:/else")
	_, err := Find()
	if !errors.Is(err, ErrNotInstalled) || !strings.Contains(err.Error(), "/nowhere:/else") || !strings.Contains(err.Error(), "install criu >= 4.0") {
		t.Errorf("got %v", err)
	}
}

func TestVersion(t *testing.T) {
	b, runs := fakeCRIU(t, "Version: 4.2.1")
	b.CacheDir = t.TempDir()
	for range 3 {
		if v, err := b.Version(t.Context()); err != nil || v != 40201 {
			t.Fatalf("got %d, %v", v, err)
		}
	}
	if n := countRuns(t, runs); n != 1 {
		t.Errorf("criu ran %d times", n)
	}
	fi, err := os.Stat(filepath.Join(b.CacheDir, cacheName))
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("cache: %v, %v", fi, err)
	}
	// Another program under the same path is another program.
	if err := os.Chtimes(b.Path, time.Time{}, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Version(t.Context()); err != nil || countRuns(t, runs) != 2 {
		t.Errorf("ran %d times, %v", countRuns(t, runs), err)
	}
	// A damaged cache is none.
	if err := os.WriteFile(filepath.Join(b.CacheDir, cacheName), []byte("\x00\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if v, err := b.Version(t.Context()); err != nil || v != 40201 {
		t.Errorf("got %d, %v", v, err)
	}
	// Nor is a directory that cannot be written a reason to fail.
	b.CacheDir = "/proc/nowhere"
	if v, err := b.Version(t.Context()); err != nil || v != 40201 {
		t.Errorf("got %d, %v", v, err)
	}
}

func TestVersionErrors(t *testing.T) {
	b, _ := fakeCRIU(t, "hello")
	if _, err := b.Version(t.Context()); err == nil || !strings.Contains(err.Error(), `"hello\n"`) {
		t.Errorf("got %v", err)
	}
	if err := os.WriteFile(b.Path, []byte("#!/bin/sh\necho no vdso >&2\nexit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Version(t.Context()); err == nil || !strings.Contains(err.Error(), "no vdso") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Version(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	b.Path += ".gone"
	if _, err := b.Version(t.Context()); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("got %v", err)
	}
}

func TestParseVersion(t *testing.T) {
	for out, want := range map[string]int{
		"Version: 4.1.1\n":                         40101,
		"Version: 4.2\n":                           40200,
		"Version: 3.17.1\nGitID: 0\n":              31701,
		"Version: 4.1\nGitID: v4.1-57-gabcdef\n":   40200,
		"Version: 4.1.1\nGitID: v4.1.1-2-gabc\n":   40200,
		"warning: x\nVersion: 4.3-rc1\n":           40300,
		"Version: 4.2.1\nVersion: 1.0\n":           40201,
		"":                                         0,
		"Version:":                                 0,
		"Version: 4":                               0,
		"Version: 0.0":                             0,
		"Version: 4.100.1":                         0,
		"Version: 4.1.1.1":                         0,
		"Version: 4.-1":                            0,
		"Version: 99999999999999999999999999999.1": 0,
	} {
		got, err := parseVersion([]byte(out))
		if got != want || (err == nil) != (want != 0) {
			t.Errorf("%q: got %d, %v; want %d", out, got, err, want)
		}
	}
}

func FuzzParseVersion(f *testing.F) {
	f.Add("Version: 4.1.1\nGitID: v4.1-57-g0\n")
	f.Add("Version: 4.2-dev")
	f.Add("Version: 0.0\n")
	f.Add("Version: 99.99.99\nGitID: v0\n")
	f.Fuzz(func(t *testing.T, out string) {
		v, err := parseVersion([]byte(out))
		if err != nil {
			return
		}
		if v < 0 || v > 1_000_000 {
			t.Fatalf("%d", v)
		}
		if again, err := parseNumber(checkpoint.FormatCRIU(v)); err != nil || again != v {
			t.Errorf("%d is written %q and read %d, %v", v, checkpoint.FormatCRIU(v), again, err)
		}
	})
}

func FuzzParseCache(f *testing.F) {
	f.Add("key 4.2.1\n", "key")
	f.Add("key 4.2.1", "key")
	f.Fuzz(func(t *testing.T, data, key string) {
		if v, ok := parseCache(data, key); ok && !strings.HasPrefix(data, key+" ") {
			t.Errorf("%q gives %d for %q", data, v, key)
		}
	})
}

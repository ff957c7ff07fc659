package store

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd-snap/snap/checkpoint"
)

// plant registers an entry without files of its own and without waiting for the disk.
func plant(b *testing.B, s *Store, i int) checkpoint.Checkpoint {
	b.Helper()
	meta := testMeta(fmt.Sprint("program ", i), testTime.Add(time.Duration(i)*time.Second))
	meta.SchemaVersion = checkpoint.SchemaVersion
	for j := range 40 {
		meta.Fingerprint[fmt.Sprintf("env.VARIABLE_%02d", j)] = digestOf(fmt.Append(nil, i, j))
		meta.Files = append(meta.Files, checkpoint.File{Path: fmt.Sprintf("core-%02d.img", j), Size: 2048, SHA256: digestOf(fmt.Append(nil, j))})
	}
	meta.Diff = checkpoint.Diff{Format: diffOverlay, SHA256: digestOf(nil)}
	raw, err := encodeManifest(&meta)
	if err != nil {
		b.Fatal(err)
	}
	hex := digestOf(raw)
	for path, content := range map[string]string{
		filepath.Join(s.entryDir(hex), manifestName):  string(raw),
		s.path(indexDir, meta.Fingerprint.Key(), hex): "",
		s.path(namesDir, fmt.Sprintf("name-%d", i)):   digestPrefix + hex + "\n",
		s.path(stateDir, hex+".name"):                 fmt.Sprintf("name-%d", i),
		s.statePath(hex):                              `{"failures":0,"restores":5}`,
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	return meta
}

// BenchmarkLookup finds one of 1000 checkpoints, and the absence of one.
func BenchmarkLookup(b *testing.B) {
	s := newStore(b)
	var key string
	for i := range 1000 {
		meta := plant(b, s, i)
		key = meta.Fingerprint.Key()
	}
	for name, want := range map[string]struct {
		key string
		n   int
	}{"hit": {key, 1}, "miss": {strings.Repeat("0", 64), 0}} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if got, err := s.Lookup(want.key); err != nil || len(got) != want.n {
					b.Fatal(len(got), err)
				}
			}
		})
	}
}

// BenchmarkVerifyMetadata checks what a restore checks: 40 small images beside 64 MiB of pages.
func BenchmarkVerifyMetadata(b *testing.B) {
	s := newStore(b)
	d := newDraft(b, s)
	for i := range 40 {
		if err := os.WriteFile(filepath.Join(d.ImagesDir(), fmt.Sprintf("core-%d.img", i)), make([]byte, 500*i), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	pages := filepath.Join(d.ImagesDir(), "pages-1.img")
	if err := os.WriteFile(pages, nil, 0o600); err != nil {
		b.Fatal(err)
	}
	if err := os.Truncate(pages, 64<<20); err != nil {
		b.Fatal(err)
	}
	e, err := d.Commit(b.Context(), testMeta("x", testTime), CommitOptions{})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := s.VerifyMetadata(e); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPutStart is on the way of every start.
func BenchmarkPutStart(b *testing.B) {
	s := newStore(b)
	for i := range keepStarts {
		if err := s.PutStart(testStart("default", fmt.Sprint("c", i))); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if err := s.PutStart(testStart("default", "c0")); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCommit registers 40 small images and 64 MiB of pages.
func BenchmarkCommit(b *testing.B) {
	s := newStore(b)
	content := make([]byte, 64<<20)
	for b.Loop() {
		b.StopTimer()
		d := newDraft(b, s)
		for i := range 40 {
			if err := os.WriteFile(filepath.Join(d.ImagesDir(), fmt.Sprintf("core-%d.img", i)), content[:500*i], 0o600); err != nil {
				b.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(d.ImagesDir(), "pages-1.img"), content, 0o600); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		e, err := d.Commit(b.Context(), testMeta("x", testTime), CommitOptions{})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := s.Remove(e.Digest); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/containerd-snap/snap/checkpoint"
)

// Bounds of a manifest; a manifest is untrusted input.
const (
	maxManifest = 8 << 20
	maxFiles    = 65536
	maxFields   = 16384
	maxPath     = 1024
	maxText     = 4096
)

// diffOverlay is the one encoding of whiteouts that the store knows.
const diffOverlay = "overlay"

// encodeManifest returns the bytes whose digest names the checkpoint.
func encodeManifest(c *checkpoint.Checkpoint) ([]byte, error) {
	if err := checkManifest(c); err != nil {
		return nil, err
	}
	written := *c
	if written.Kind == checkpoint.Template {
		written.Kind = "" // as before there were two kinds: the digest is still the same
	}
	raw, err := json.MarshalIndent(&written, "", "\t")
	if err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	if len(raw) > maxManifest {
		return nil, fmt.Errorf("%w manifest: %d bytes, the limit is %d", checkpoint.ErrInvalid, len(raw), maxManifest)
	}
	return append(raw, '\n'), nil
}

// decodeManifest reads and checks a manifest. Its errors wrap checkpoint.ErrInvalid.
func decodeManifest(raw []byte) (checkpoint.Checkpoint, error) {
	var c checkpoint.Checkpoint
	if err := decodeJSON(raw, &c); err != nil {
		return checkpoint.Checkpoint{}, fmt.Errorf("%w manifest: %w", checkpoint.ErrInvalid, err)
	}
	if c.Kind == "" {
		c.Kind = checkpoint.Template // as encodeManifest writes it
	}
	if err := checkManifest(&c); err != nil {
		return checkpoint.Checkpoint{}, err
	}
	return c, nil
}

// ParseManifest reads the manifest of an entry of any store, and returns the digest of the
// checkpoint. Errors wrap checkpoint.ErrInvalid, also for one that this version would write otherwise, so
// that what it registers would have another digest.
func ParseManifest(raw []byte) (c checkpoint.Checkpoint, digest string, err error) {
	if c, err = decodeManifest(raw); err != nil {
		return checkpoint.Checkpoint{}, "", err
	}
	again, err := encodeManifest(&c)
	if err == nil && !bytes.Equal(raw, again) {
		err = fmt.Errorf("%w manifest: it has what this version does not know; use the version that wrote it", checkpoint.ErrInvalid)
	}
	if err != nil {
		return checkpoint.Checkpoint{}, "", err
	}
	return c, digestPrefix + digestOf(raw), nil
}

// decodeJSON decodes the one JSON value that raw holds.
func decodeJSON(raw []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return fmt.Errorf("more follows after the first value, at byte %d", dec.InputOffset())
	}
	return nil
}

func digestOf(raw []byte) (hexDigits string) {
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

func checkManifest(c *checkpoint.Checkpoint) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w manifest: %s", checkpoint.ErrInvalid, fmt.Sprintf(format, args...))
	}
	if c.SchemaVersion != checkpoint.SchemaVersion {
		return bad("schema %d, this version reads %d only", c.SchemaVersion, checkpoint.SchemaVersion)
	}
	switch {
	case c.Kind != "" && c.Kind != checkpoint.Template && c.Kind != checkpoint.ResumePoint:
		return bad("kind %.20q is neither %q nor %q", c.Kind, checkpoint.Template, checkpoint.ResumePoint)
	case (c.Kind == checkpoint.ResumePoint) != (c.Owner != ""):
		return bad("a resume point has an owner, a template has none")
	}
	if y := c.CreatedAt.Year(); c.CreatedAt.IsZero() || y < 1970 || y > 9999 {
		return bad("createdAt is missing or out of range")
	}
	for _, t := range []struct{ field, text string }{
		{"owner", c.Owner},
		{"source.namespace", c.Source.Namespace},
		{"source.container", c.Source.Container},
		{"source.image", c.Source.Image},
		{"source.imageDigest", c.Source.ImageDigest},
		{"host.arch", c.Host.Arch},
		{"host.kernel", c.Host.Kernel},
		{"host.cgroup", c.Host.Cgroup},
		{"memory.reason", c.Memory.Reason},
		{"memory.base", c.Memory.Base},
	} {
		if err := checkText(t.text); err != nil {
			return bad("%s %v", t.field, err)
		}
	}
	if !utf8.ValidString(c.Source.Command) || len(c.Source.Command) > maxText {
		return bad("source.command is not UTF-8 or longer than %d bytes", maxText)
	}
	switch c.Memory.Form {
	case "", checkpoint.MemoryCopy, checkpoint.MemoryMapped:
	default:
		return bad("memory.form %.20q, want %q or %q", c.Memory.Form, checkpoint.MemoryCopy, checkpoint.MemoryMapped)
	}
	if c.Source.Processes < 0 || c.Host.CRIU < 0 {
		return bad("source.processes or host.criu is negative")
	}
	for _, f := range c.Host.CPUFeatures {
		if err := checkText(f); err != nil {
			return bad("host.cpuFeatures: a feature %v", err)
		}
	}
	for _, ms := range []float64{c.Timing.PauseMS, c.Timing.DumpMS, c.Timing.DiffMS} {
		if math.IsNaN(ms) || math.IsInf(ms, 0) || ms < 0 {
			return bad("timing holds a negative or impossible duration")
		}
	}
	if err := checkFingerprint(c.Fingerprint); err != nil {
		return bad("fingerprint: %v", err)
	}
	if err := checkHeld(c.Held); err != nil {
		return bad("held: %v", err)
	}
	if err := checkFiles(c); err != nil {
		return bad("%v", err)
	}
	return nil
}

// checkHeld refuses what would be looked for elsewhere than below its mount.
func checkHeld(held []checkpoint.HeldFile) error {
	if len(held) > maxFiles {
		return fmt.Errorf("%d files, the limit is %d", len(held), maxFiles)
	}
	for _, f := range held {
		for _, p := range []string{f.Path, f.Mount} {
			if !path.IsAbs(p) || path.Clean(p) != p || len(p) > maxText || !utf8.ValidString(p) {
				return fmt.Errorf("path %.80q is not absolute and plain", p)
			}
		}
		if f.Mount != "/" && f.Path != f.Mount && !strings.HasPrefix(f.Path, f.Mount+"/") {
			return fmt.Errorf("%.80q is not below its mount %.80q", f.Path, f.Mount)
		}
	}
	return nil
}

// checkFingerprint refuses what JSON would change: the key of the fingerprint as
// it was written and as it is read must be the same.
func checkFingerprint(f checkpoint.Fingerprint) error {
	if len(f) > maxFields {
		return fmt.Errorf("%d fields, the limit is %d", len(f), maxFields)
	}
	for name, value := range f {
		if !utf8.ValidString(name) || !utf8.ValidString(value) {
			return fmt.Errorf("field %.80q is not UTF-8; use the digest of the value", name)
		}
	}
	return nil
}

func checkFiles(c *checkpoint.Checkpoint) error {
	if len(c.Files) > maxFiles {
		return fmt.Errorf("%d files, the limit is %d", len(c.Files), maxFiles)
	}
	total, last := c.Diff.Bytes, ""
	if c.Diff.Bytes < 0 || c.Diff.Files < 0 {
		return fmt.Errorf("diff has a negative size")
	}
	if c.Diff.Format != diffOverlay || !isHash(c.Diff.SHA256) {
		return fmt.Errorf("diff has format %.20q and digest %.80q, want %q and %d hexadecimal digits",
			c.Diff.Format, c.Diff.SHA256, diffOverlay, hexLen)
	}
	for _, f := range c.Files {
		if !validPath(f.Path) {
			return fmt.Errorf("path %.80q leads out of images/ or is not plain", f.Path)
		}
		if f.Path <= last {
			return fmt.Errorf("path %.80q is out of order or listed twice", f.Path)
		}
		last = f.Path
		if f.Shared && !f.Sparse {
			return fmt.Errorf("%s is shared and no page file", f.Path)
		}
		if f.Stored < 0 || f.Stored > f.Size {
			return fmt.Errorf("more of %s is stored than there is", f.Path)
		}
		if f.Size < 0 || f.Size > math.MaxInt64-total {
			return fmt.Errorf("size of %s is out of range", f.Path)
		}
		total += f.Size
		if !isHash(f.SHA256) {
			return fmt.Errorf("digest of %s is not %d hexadecimal digits", f.Path, hexLen)
		}
	}
	return nil
}

// validPath says whether p is a path below images/ that means the same to everyone.
func validPath(p string) bool {
	return len(p) <= maxPath && p != "." && fs.ValidPath(p) && checkText(p) == nil
}

// checkText refuses text that no identifier of the kind holds and that would
// trouble a terminal or a log.
func checkText(s string) error {
	if len(s) > maxText {
		return fmt.Errorf("is longer than %d bytes", maxText)
	}
	if !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
		return fmt.Errorf("holds control characters or is not UTF-8")
	}
	return nil
}

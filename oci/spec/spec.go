// Package spec reads what a container was asked to be: the OCI spec of a
// bundle, the annotations that set Snap's behaviour, and from both the
// container's fingerprint and the obstacles to restoring it.
//
// It decides nothing (checkpoint/match does) and creates nothing. Its only
// contact with the system is Load, which reads one file. It has no locks: all
// functions are safe for concurrent use as long as nobody writes to the spec
// they are given.
package spec

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/containerd-snap/snap/checkpoint"
)

// configName is the spec's file in a bundle, by the OCI runtime specification.
const configName = "config.json"

// maxConfig bounds config.json, in bytes. containerd sends specs in messages of
// at most 16 MiB; anything larger is no spec.
const maxConfig = 16 << 20

// Load reads config.json of the bundle and makes its relative paths (the root's
// and those of bind mounts' sources) absolute against the bundle, as a runtime
// does whose working directory is the bundle. It does not change the working
// directory, of which a shim that serves several bundles has only one.
//
// The bundle's own symbolic links are resolved, because libcontainer refuses a
// root file system that is reached through one. A missing linux section is
// filled with an empty one, so that callers need not check.
//
// Errors: checkpoint.ErrInvalid if the bundle's path is not absolute or the
// spec cannot be run; otherwise those of reading the file.
func Load(bundle string) (*specs.Spec, error) {
	if !filepath.IsAbs(bundle) {
		return nil, fmt.Errorf("load spec: %w bundle path %q: it must be absolute", checkpoint.ErrInvalid, bundle)
	}
	dir, err := filepath.EvalSymlinks(bundle)
	if err != nil {
		return nil, fmt.Errorf("load spec: resolve bundle: %w", err)
	}
	f, err := os.Open(filepath.Join(dir, configName))
	if err != nil {
		return nil, fmt.Errorf("load spec: %w", err)
	}
	defer f.Close()
	s, err := parse(f, dir)
	if err != nil {
		return nil, fmt.Errorf("load spec %s: %w", f.Name(), err)
	}
	return s, nil
}

// Decode reads a spec that is not in a bundle yet as Load reads one from the bundle dir.
func Decode(raw []byte, dir string) (*specs.Spec, error) { return parse(bytes.NewReader(raw), dir) }

// parse decodes and checks a spec, and makes its paths absolute against dir.
func parse(r io.Reader, dir string) (*specs.Spec, error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxConfig+1))
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	if len(raw) > maxConfig {
		return nil, fmt.Errorf("%w: larger than %d bytes", checkpoint.ErrInvalid, maxConfig)
	}
	// Unknown fields are skipped, as the OCI specification demands.
	s := &specs.Spec{}
	if err := json.Unmarshal(raw, s); err != nil {
		return nil, fmt.Errorf("%w: decode: %w", checkpoint.ErrInvalid, err)
	}
	if err := check(s); err != nil {
		return nil, err
	}
	if s.Linux == nil {
		s.Linux = &specs.Linux{}
	}
	absolutise(s, dir)
	return s, nil
}

// check rejects what no container can be started from.
func check(s *specs.Spec) error {
	switch p := s.Process; {
	case p == nil:
		return fmt.Errorf("%w: process is missing", checkpoint.ErrInvalid)
	case len(p.Args) == 0:
		return fmt.Errorf("%w: process.args is empty; name the program to run", checkpoint.ErrInvalid)
	case p.Cwd == "":
		return fmt.Errorf("%w: process.cwd is missing", checkpoint.ErrInvalid)
	case !filepath.IsAbs(p.Cwd):
		return fmt.Errorf("%w: process.cwd %q is not absolute", checkpoint.ErrInvalid, p.Cwd)
	case s.Root == nil || s.Root.Path == "":
		return fmt.Errorf("%w: root.path is missing", checkpoint.ErrInvalid)
	}
	return nil
}

// absolutise makes the paths absolute that libcontainer's specconv would join
// with the working directory.
func absolutise(s *specs.Spec, dir string) {
	s.Root.Path = absolute(dir, s.Root.Path)
	for i := range s.Mounts {
		if m := &s.Mounts[i]; isBind(*m) {
			m.Source = absolute(dir, m.Source)
		}
	}
}

func absolute(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

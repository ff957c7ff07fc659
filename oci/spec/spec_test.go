package spec

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/containerd-snap/snap/checkpoint"
)

// bundle writes a bundle with the config and returns its real path.
func bundle(t *testing.T, config string) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, configName), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestLoad(t *testing.T) {
	config, err := os.ReadFile("testdata/cri.json")
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	dir := bundle(t, string(config))
	// A link to the bundle, as /var/run often is one.
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, link} {
		s, err := Load(path)
		if err != nil {
			t.Fatal(err)
		}
		if want := filepath.Join(dir, "rootfs"); s.Root.Path != want {
			t.Errorf("root is %s, want %s", s.Root.Path, want)
		}
		sources := map[string]string{
			"/proc":    "proc",
			"/dev":     "tmpfs",
			"/dev/shm": "/run/containerd/sandboxes/0a1b/shm",
			"/data":    filepath.Join(dir, "volumes/data"),
		}
		for _, m := range s.Mounts {
			if want, ok := sources[m.Destination]; ok && m.Source != want {
				t.Errorf("source of %s is %s, want %s", m.Destination, m.Source, want)
			}
		}
	}
	if after, err := os.Getwd(); err != nil || after != before {
		t.Errorf("working directory is %s (%v), was %s", after, err, before)
	}
}

func TestLoadFillsLinux(t *testing.T) {
	s, err := Load(bundle(t, `{"process": {"args": ["a"], "cwd": "/"}, "root": {"path": "/abs/rootfs"}, "unknown": 1}`))
	if err != nil {
		t.Fatal(err)
	}
	if s.Linux == nil {
		t.Error("the linux section is missing")
	}
	if s.Root.Path != "/abs/rootfs" {
		t.Errorf("the absolute root became %s", s.Root.Path)
	}
}

func TestLoadRejects(t *testing.T) {
	for name, test := range map[string]struct{ config, names string }{
		"empty file":          {"", "decode"},
		"null":                {"null", "process is missing"},
		"another type":        {`[]`, "decode"},
		"trailing data":       {`{} {}`, "decode"},
		"no process":          {`{"root": {"path": "r"}}`, "process is missing"},
		"no args":             {`{"process": {"cwd": "/", "args": []}, "root": {"path": "r"}}`, "process.args"},
		"no cwd":              {`{"process": {"args": ["a"]}, "root": {"path": "r"}}`, "process.cwd is missing"},
		"relative cwd":        {`{"process": {"args": ["a"], "cwd": "app"}, "root": {"path": "r"}}`, `process.cwd "app"`},
		"no root":             {`{"process": {"args": ["a"], "cwd": "/"}}`, "root.path"},
		"root without a path": {`{"process": {"args": ["a"], "cwd": "/"}, "root": {}}`, "root.path"},
		"too large":           {`{"process": {"args": ["` + strings.Repeat("x", maxConfig) + `"]}}`, "larger than"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := bundle(t, test.config)
			_, err := Load(dir)
			if !errors.Is(err, checkpoint.ErrInvalid) {
				t.Fatalf("error is %v, want ErrInvalid", err)
			}
			for _, part := range []string{test.names, filepath.Join(dir, configName)} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q does not name %q", err, part)
				}
			}
		})
	}
}

func TestLoadWithoutBundle(t *testing.T) {
	if _, err := Load("some/bundle"); !errors.Is(err, checkpoint.ErrInvalid) {
		t.Errorf("relative bundle: error is %v, want ErrInvalid", err)
	}
	if _, err := Load(filepath.Join(t.TempDir(), "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent bundle: error is %v, want ErrNotExist", err)
	}
	if _, err := Load(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent config: error is %v, want ErrNotExist", err)
	}
}

// FuzzParse holds parse to its promises whatever the file says, and the functions
// that take a spec to not failing on what parse lets through.
func FuzzParse(f *testing.F) {
	config, err := os.ReadFile("testdata/cri.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(config)
	f.Add([]byte(`{"process": {"args": ["a"], "cwd": "/"}, "root": {"path": "r"}, "mounts": [{"type": "bind"}]}`))
	f.Add([]byte(`{"process": null}`))
	f.Add([]byte(`{"linux": {"seccomp": {}}, "hooks": {"prestart": [null]}}`))
	f.Fuzz(func(t *testing.T, config []byte) {
		s, err := parse(bytes.NewReader(config), "/bundle")
		if err != nil {
			if !errors.Is(err, checkpoint.ErrInvalid) {
				t.Fatalf("error is %v, want ErrInvalid", err)
			}
			return
		}
		if s.Process == nil || len(s.Process.Args) == 0 || !filepath.IsAbs(s.Process.Cwd) || s.Linux == nil || !filepath.IsAbs(s.Root.Path) {
			t.Fatalf("parse let through %+v", s)
		}
		for _, m := range s.Mounts {
			if isBind(m) && !filepath.IsAbs(m.Source) {
				t.Fatalf("mount %s has the relative source %s", m.Destination, m.Source)
			}
		}
		for name := range Fingerprint(s, "") {
			if Describe(name) == "" {
				t.Fatalf("no words for %q", name)
			}
		}
		// What is written back has the same fingerprint: nothing hangs on the
		// difference between nil and empty, or on the order of maps.
		again, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		second, err := parse(bytes.NewReader(again), "/elsewhere")
		if err != nil {
			t.Fatal(err)
		}
		if diff := Fingerprint(s, "x").Diff(Fingerprint(second, "x")); len(diff) > 0 {
			t.Fatalf("fields %q changed by encoding the spec again", diff)
		}
		Obstacles(s)
		IsSandbox(s)
		_, _ = ParseSettings(s.Annotations, DefaultSettings())
	})
}

func TestIsSandbox(t *testing.T) {
	for kind, want := range map[string]bool{"sandbox": true, "container": false, "": false} {
		s := &specs.Spec{Annotations: map[string]string{criContainerType: kind}}
		if got := IsSandbox(s); got != want {
			t.Errorf("type %q: IsSandbox is %v", kind, got)
		}
	}
	if IsSandbox(&specs.Spec{}) {
		t.Error("a spec without annotations is a sandbox")
	}
}

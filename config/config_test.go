package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func load(t *testing.T, content string) (Config, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "snap.toml")
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(EnvFile, file)
	return Load()
}

func TestLoad(t *testing.T) {
	for content, want := range map[string]Config{
		"":                              {Root: DefaultRoot},
		"# nothing set\n":               {Root: DefaultRoot},
		"root = \"/srv/checkpoints\"\n": {Root: "/srv/checkpoints"},
	} {
		if got, err := load(t, content); err != nil || got != want {
			t.Errorf("%q: %+v, %v", content, got, err)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	for content, words := range map[string][]string{
		`rot = "/srv"`:             {"snap.toml", "unknown key", "the keys are: root", "rot"},
		"[store]\nroot = \"/srv\"": {"unknown key", "store"},
		`root = "srv"`:             {"snap.toml", `root = "srv" is not an absolute path`},
		`root = ""`:                {`root = "" is not an absolute path`},
		`root = 7`:                 {"snap.toml", "root"},
		`root = `:                  {"snap.toml"},
	} {
		_, err := load(t, content)
		if err == nil {
			t.Errorf("%q was accepted", content)
			continue
		}
		for _, w := range words {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%q: %v lacks %q", content, err, w)
			}
		}
	}
}

// The default file may be absent; one that somebody names may not.
func TestLoadAbsent(t *testing.T) {
	t.Setenv(EnvFile, "")
	if _, err := os.Stat(DefaultFile); err == nil {
		t.Fatalf("%s exists on this machine: move it away for the test", DefaultFile)
	}
	if c, err := Load(); err != nil || c.Root != DefaultRoot {
		t.Errorf("%+v, %v", c, err)
	}
	t.Setenv(EnvFile, filepath.Join(t.TempDir(), "gone.toml"))
	if _, err := Load(); err == nil || !strings.Contains(err.Error(), "gone.toml") {
		t.Errorf("a named file that does not exist: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"", `root = "/srv"`, `root = "srv"`, "[root]", "root.x = 1", "root = '''\n/a'''"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c := Config{Root: DefaultRoot}
		if err := c.parse("snap.toml", data); err == nil && !filepath.IsAbs(c.Root) {
			t.Errorf("accepted root %q", c.Root)
		} else if err != nil && !strings.Contains(err.Error(), "snap.toml") {
			t.Errorf("the error does not name the file: %v", err)
		}
	})
}

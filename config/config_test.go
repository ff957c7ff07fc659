package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/containerd-snap/snap/oci/spec"
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
	for content, change := range map[string]func(*Config){
		"":                              func(*Config) {},
		"# nothing set\n":               func(*Config) {},
		"root = \"/srv/checkpoints\"\n": func(c *Config) { c.Root = "/srv/checkpoints" },
		"[defaults]\nrestore = 'Never'": func(c *Config) { c.Defaults = map[string]string{"restore": "Never"} },
		"capture.allow = []":            func(c *Config) { c.Capture.Allow = []string{} },
		"[capture]\nallow = ['Every']\nmin_interval = '1h30m'": func(c *Config) {
			c.Capture = Capture{Allow: []string{"Every"}, MinInterval: Duration(90 * time.Minute)}
		},
		"[limits]\nmax_bytes = '50GiB'\nper_image = 0\nmax_age = '7d'\nmax_idle = '0'\nresume_points = 1": func(c *Config) {
			c.Limits = Limits{MaxBytes: 50 << 30, MaxAge: Duration(7 * day), ResumePoints: 1}
		},
		"limits.max_bytes = 1000": func(c *Config) { c.Limits.MaxBytes = 1000 },
	} {
		want := Default()
		change(&want)
		if got, err := load(t, content); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, %v", content, got, err)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	for content, words := range map[string][]string{
		`rot = "/srv"`:                      {"snap.toml", "unknown key", "the keys are: root, [defaults], [capture], [limits]", "rot"},
		"[store]\nroot = \"/srv\"":          {"unknown key", "store"},
		"[limits]\nmax = 1":                 {"unknown key", "max_bytes, per_image, max_age, max_idle, resume_points"},
		`root = "srv"`:                      {"snap.toml", `root = "srv" is not an absolute path`},
		`root = ""`:                         {`root = "" is not an absolute path`},
		`root = 7`:                          {"snap.toml", "root"},
		`root = `:                           {"snap.toml"},
		"[defaults]\nrestore = 'Sometimes'": {"snap.toml", "[defaults]", "Sometimes", "IfPresent, Required, Never"},
		"[defaults]\nrestor = 'Never'":      {"[defaults]", "restor", "allowed keys"},
		"[defaults]\ncheckpoint = 'web'":    {"[defaults]", "checkpoint", "one container"},
		"[defaults]\n'restore.a' = 'Never'": {"[defaults]", "restore.a", "allowed keys"},
		"[defaults]\nrestore = 1":           {"snap.toml", "restore"},
		"capture.allow = ['Always']":        {"[capture] allow", "Always", "OnReady and Every"},
		"capture.min_interval = 'soon'":     {"snap.toml", "soon", "30d"},
		"limits.max_bytes = '-1'":           {"snap.toml", "-1", "50GiB"},
		"limits.max_bytes = '9999999TiB'":   {"9999999TiB"},
		"limits.max_age = '-1h'":            {"-1h"},
		"limits.max_idle = '999999999999d'": {"999999999999d"},
		"limits.per_image = -1":             {"[limits] per_image = -1", "0 to"},
		"limits.resume_points = 0":          {"[limits] resume_points = 0", "1 to"},
	} {
		c, err := load(t, content)
		if err == nil {
			t.Errorf("%q was accepted", content)
			continue
		}
		if !reflect.DeepEqual(c, Default()) {
			t.Errorf("%q left its traces: %+v", content, c)
		}
		for _, w := range words {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%q: %v lacks %q", content, err, w)
			}
		}
	}
}

// Where the store is stays known, so that the reason for a boot can be recorded.
func TestLoadKeepsRoot(t *testing.T) {
	for content, want := range map[string]string{
		"root = '/srv'\n[limits]\nmax = 1":         "/srv",
		"root = '/srv'\n[limits]\nper_image = -1":  "/srv",
		"root = '/srv'\n[limits]\nmax_bytes = 'x'": "/srv",
		"root = 'srv'\n[limits]\nmax = 1":          DefaultRoot,
		"root = '/srv'\n[limits":                   DefaultRoot,
	} {
		c, err := load(t, content)
		if err == nil || c.Root != want {
			t.Errorf("%q: root %q, want %q; %v", content, c.Root, want, err)
		}
	}
}

// The default file may be absent; one that somebody names may not.
func TestLoadAbsent(t *testing.T) {
	t.Setenv(EnvFile, "")
	if _, err := os.Stat(DefaultFile); err == nil {
		t.Fatalf("%s exists on this machine: move it away for the test", DefaultFile)
	}
	if c, err := Load(); err != nil || !reflect.DeepEqual(c, Default()) {
		t.Errorf("%+v, %v", c, err)
	}
	t.Setenv(EnvFile, filepath.Join(t.TempDir(), "gone.toml"))
	if _, err := Load(); err == nil || !strings.Contains(err.Error(), "gone.toml") {
		t.Errorf("a named file that does not exist: %v", err)
	}
}

// The example says of each key what holds without it, so that it can be copied as it is.
func TestExample(t *testing.T) {
	text, err := os.ReadFile("../contrib/snap.toml")
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse("contrib/snap.toml", text)
	if err != nil {
		t.Fatal(err)
	}
	if s := got.Settings(); !reflect.DeepEqual(s, spec.DefaultSettings()) {
		t.Errorf("its [defaults] make %+v", s)
	}
	for _, key := range spec.Keys() {
		_, err := spec.ParseDefaults(map[string]string{key: ""})
		personal := strings.Contains(err.Error(), "one container")
		if told := strings.Contains(string(text), "\n"+key+" = ") || strings.Contains(string(text), "\n# "+key+" = "); told == personal {
			t.Errorf("it tells of %s: %v", key, told)
		}
	}
	got.Defaults = nil
	if want := Default(); !reflect.DeepEqual(got, want) {
		t.Errorf("it sets\n%+v, the defaults are\n%+v", got, want)
	}
	for key := range strings.SplitSeq(captureKeys+", "+limitKeys, ", ") {
		if !strings.Contains(string(text), "\n"+key+" = ") {
			t.Errorf("it does not explain %s", key)
		}
	}
}

func TestWith(t *testing.T) {
	host := Default()
	host.Defaults = map[string]string{"restore": "Never"}
	host.Limits.MaxBytes = 5
	o, err := ParseOverlay("options", map[string]any{
		"defaults": map[string]any{"restore": "Required"},
		"capture":  map[string]any{"allow": []any{"Every"}},
		"limits":   map[string]any{"max_idle": "1h"},
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := host.With("options", o)
	if err != nil {
		t.Fatal(err)
	}
	want := host
	want.Defaults = map[string]string{"restore": "Required"}
	want.Capture.Allow = []string{"Every"}
	want.Limits.MaxIdle = Duration(time.Hour)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if host.Defaults["restore"] != "Never" || len(host.Capture.Allow) != 2 {
		t.Errorf("the host's own became %+v", host)
	}
	if got, err := host.With("options", Overlay{}); err != nil || !reflect.DeepEqual(got, host) {
		t.Errorf("without any: %+v, %v", got, err)
	}
	for _, tables := range []map[string]any{
		{"limits": map[string]any{"max": 1}},
		{"defaults": map[string]any{"restore": "x"}},
		{"capture": "x"},
	} {
		if _, err := ParseOverlay("options", tables); err == nil || !strings.Contains(err.Error(), "options") {
			t.Errorf("%v: %v", tables, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"", `root = "/srv"`, `root = "srv"`, "[root]", "root.x = 1", "root = '''\n/a'''",
		"[defaults]\nrestore = 'Never'", "capture.allow = ['OnReady']", "[limits]\nmax_bytes = '1GiB'\nmax_idle = '3d'",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("snap.toml", data)
		if err != nil {
			if !strings.Contains(err.Error(), "snap.toml") {
				t.Errorf("the error does not name the file: %v", err)
			}
			return
		}
		if !filepath.IsAbs(c.Root) || c.Limits.MaxBytes < 0 || c.Limits.MaxAge < 0 || c.Limits.MaxIdle < 0 ||
			c.Capture.MinInterval < 0 || c.Limits.PerImage < 0 || c.Limits.ResumePoints < 1 {
			t.Errorf("accepted %+v", c)
		}
	})
}

package options

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/config"
)

func body(text string) *runtimeoptions.Options {
	return &runtimeoptions.Options{ConfigBody: []byte(text)}
}

// An options table of a CRI handler, as CRI passes it on.
const table = `
BinaryName = "/usr/bin/runc"
CriuWorkPath = "/w"
IoGid = 2
IoUid = 1
NoNewKeyring = true
NoPivotRoot = true
Root = "/r"
ShimCgroup = "/g"
SystemdCgroup = true
TypeUrl = "x"

[defaults]
restore = "Never"

[capture]
allow = []
`

func TestDecodeGeneric(t *testing.T) {
	overlay, err := config.ParseOverlay("", map[string]any{
		"defaults": map[string]any{"restore": "Never"},
		"capture":  map[string]any{"allow": []any{}},
	})
	if err != nil {
		t.Fatal(err)
	}
	all := Options{
		Root: "/r", NoPivotRoot: true, NoNewKeyring: true, SystemdCgroup: true, IOUID: 1, IOGID: 2,
		CRIUWorkPath: "/w", ShimCgroup: "/g", Overlay: overlay,
	}
	file := filepath.Join(t.TempDir(), "options.toml")
	if err := os.WriteFile(file, []byte(table), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		in   *runtimeoptions.Options
		want Options
	}{
		"nothing":                  {body("# nothing\n"), Options{Root: DefaultRoot}},
		"a table":                  {body(table), all},
		"a file":                   {&runtimeoptions.Options{TypeUrl: "x", ConfigPath: file}, all},
		"a file comes before that": {&runtimeoptions.Options{ConfigPath: file, ConfigBody: []byte("x = 1")}, all},
		"as CRI writes literals":   {body("SystemdCgroup = true\nRoot = ''\n"), Options{Root: DefaultRoot, SystemdCgroup: true}},
	} {
		got, err := Decode(marshal(t, c.in))
		if err != nil || got != c.want {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, c.want)
		}
	}
	c, err := config.Default().With("", all.Overlay)
	if err != nil || c.Defaults["restore"] != "Never" || len(c.Capture.Allow) != 0 {
		t.Errorf("the tables became %+v, %v", c, err)
	}
}

func TestDecodeGenericRefuses(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(dir, "bad.toml")
	if err := os.WriteFile(bad, []byte("SystemCgroup = true"), 0o600); err != nil {
		t.Fatal(err)
	}
	huge := filepath.Join(dir, "huge.toml")
	if err := os.WriteFile(huge, []byte(strings.Repeat("#", maxConfig+1)), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		in    *runtimeoptions.Options
		words []string
	}{
		"an unknown key":          {body("SystemCgroup = true"), []string{"ConfigBody", `"SystemCgroup"`, "SystemdCgroup", "[defaults], [capture], [limits]"}},
		"another spelling":        {body("systemdcgroup = true"), []string{"systemdcgroup", "SystemdCgroup"}},
		"the store's directory":   {body("root = '/srv'"), []string{"root", "/etc/containerd/snap.toml"}},
		"a value of another type": {body("SystemdCgroup = 'yes'"), []string{"SystemdCgroup", "bool"}},
		"a negative uid":          {body("IoUid = -1"), []string{"IoUid"}},
		"no TOML":                 {body("SystemdCgroup ="), []string{"ConfigBody"}},
		"an unknown limit":        {body("[limits]\nmax = 1"), []string{"max_bytes"}},
		"a bad default":           {body("[defaults]\nrestore = 'x'"), []string{"IfPresent"}},
		"no such file":            {&runtimeoptions.Options{ConfigPath: "/nowhere/x.toml"}, []string{"ConfigPath", "/nowhere/x.toml"}},
		"a relative path":         {&runtimeoptions.Options{ConfigPath: "x.toml"}, []string{"x.toml", "absolute"}},
		"a directory":             {&runtimeoptions.Options{ConfigPath: dir}, []string{dir, "regular"}},
		"a fifo":                  {&runtimeoptions.Options{ConfigPath: fifo}, []string{fifo, "regular"}},
		"a bad file":              {&runtimeoptions.Options{ConfigPath: bad}, []string{bad, "SystemCgroup"}},
		"a huge file":             {&runtimeoptions.Options{ConfigPath: huge}, []string{huge, "larger"}},
	} {
		o, err := Decode(marshal(t, c.in))
		if !errdefs.IsInvalidArgument(err) || o != (Options{Root: DefaultRoot}) {
			t.Errorf("%s: %+v, %v", name, o, err)
			continue
		}
		for _, w := range c.words {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v lacks %q", name, err, w)
			}
		}
	}
}

func FuzzGeneric(f *testing.F) {
	f.Add([]byte(table))
	f.Add([]byte("[limits]\nmax_bytes = '1GiB'"))
	f.Add([]byte("Root = []"))
	f.Fuzz(func(t *testing.T, data []byte) {
		o := Options{Root: DefaultRoot}
		if err := o.parse("the options", data); err != nil {
			if !strings.Contains(err.Error(), "the options") {
				t.Errorf("the error does not name its source: %v", err)
			}
			return
		}
		if _, err := config.Default().With("the options", o.Overlay); err != nil || o.Root == "" {
			t.Errorf("accepted %+v: %v", o, err)
		}
	})
}

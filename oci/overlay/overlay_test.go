package overlay

import (
	"os"
	"path/filepath"
	"testing"
)

func TestUpperDir(t *testing.T) {
	options := []string{"workdir=/w", "upperdir=/u", "lowerdir=/a:/b"}
	for name, c := range map[string]struct {
		fstype  string
		options []string
		want    string
	}{
		"overlay":          {"overlay", options, "/u"},
		"read-only":        {"overlay", []string{"lowerdir=/a:/b"}, ""},
		"bind":             {"bind", options, ""},
		"nothing":          {"", nil, ""},
		"a similar option": {"overlay", []string{"xupperdir=/u"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := UpperDir(c.fstype, c.options); got != c.want {
				t.Errorf("UpperDir = %q, want %q", got, c.want)
			}
		})
	}
}

func TestFresh(t *testing.T) {
	dir := t.TempDir()
	if fresh, err := Fresh(dir); err != nil || !fresh {
		t.Errorf("an empty layer: %v, %v", fresh, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if fresh, err := Fresh(dir); err != nil || fresh {
		t.Errorf("a layer with a file: %v, %v", fresh, err)
	}
	if fresh, err := Fresh(""); err != nil || fresh {
		t.Errorf("no layer: %v, %v", fresh, err)
	}
	if fresh, err := Fresh(filepath.Join(dir, "absent")); err == nil || fresh {
		t.Errorf("a layer that is gone: %v, %v", fresh, err)
	}
}

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd-snap/snap/cmd/snapctl/internal/cli"
)

// TestPages holds that each command has a page that names its flags and its example.
func TestPages(t *testing.T) {
	dir := t.TempDir()
	if err := write("v1.2.3", dir); err != nil {
		t.Fatal(err)
	}
	for _, cmd := range cli.Command().Commands() {
		raw, err := os.ReadFile(filepath.Join(dir, "man1", "snapctl-"+cmd.Name()+".1"))
		if err != nil {
			t.Error(err)
			continue
		}
		page := string(raw)
		for _, want := range []string{".TH \"SNAPCTL-" + strings.ToUpper(cmd.Name()) + "\" 1", "snapctl v1.2.3", text(cmd.Short), ".SH EXIT STATUS", ".BR snapctl (1)"} {
			if !strings.Contains(page, want) {
				t.Errorf("the page of %s lacks %q", cmd.Name(), want)
			}
		}
		if cmd.Flags().Lookup("json") != nil && !strings.Contains(page, `\fB\-\-json\fR`) {
			t.Errorf("the page of %s lacks --json", cmd.Name())
		}
		for line := range strings.SplitSeq(page, "\n") {
			if strings.HasPrefix(line, ".") && !strings.ContainsAny(line[1:2], "TSBnf") {
				t.Errorf("the page of %s has a stray request: %q", cmd.Name(), line)
			}
		}
	}
	for _, file := range []string{"man1/snapctl.1", "completions/snapctl.bash", "completions/_snapctl", "completions/snapctl.fish"} {
		if st, err := os.Stat(filepath.Join(dir, file)); err != nil || st.Size() == 0 {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func TestText(t *testing.T) {
	for s, want := range map[string]string{
		"": "", "plain": "plain", "--json": `\-\-json`, `a\b`: `a\eb`, ".toml": `\&.toml`, "'quoted'": `\&'quoted'`, "  .x": "  .x", "✓": `\[u2713]`,
	} {
		if got := text(s); got != want {
			t.Errorf("text(%q) = %q, want %q", s, got, want)
		}
	}
}

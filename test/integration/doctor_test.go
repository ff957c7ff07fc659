package integration

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd-snap/snap/test/harness"
)

// TestDoctor has snapctl look at a node that is well, and at what makes it ill.
func TestDoctor(t *testing.T) {
	t.Parallel()
	n := newNode(t, harness.Options{})
	type check struct{ Name, Level, Detail, Remedy string }
	doctor := func() (ok bool, checks []check) {
		t.Helper()
		out, _ := n.Snapctl(testContext(t), "doctor", "--json") // its code is told by "ok"
		var result struct {
			OK     bool
			Checks []check
		}
		if err := json.Unmarshal([]byte(out.Stdout), &result); err != nil {
			t.Fatalf("%v: %s%s", err, out.Stdout, out.Stderr)
		}
		return result.OK, result.Checks
	}
	has := func(name, level, text string) {
		t.Helper()
		_, checks := doctor()
		for _, c := range checks {
			if c.Name == name && c.Level == level && strings.Contains(c.Detail, text) {
				return
			}
		}
		t.Errorf("no %s %s that says %q in %+v", level, name, text, checks)
	}
	c := start(t, n, probeOf()) // makes the store
	c.Probe()
	if ok, checks := doctor(); !ok {
		t.Errorf("a node that is well: %+v", checks)
	}
	has("containerd", "ok", n.Address)
	has("shim", "ok", "as this program")
	has("criu", "ok", "in containerd's PATH")
	has("handlers", "ok", "no runtime handler")
	has("configuration", "ok", n.SnapConfig())
	has("store", "ok", n.StoreRoot)

	if err := os.Rename(filepath.Join(n.Bin, "containerd-shim-snap-v2"), filepath.Join(n.Dir, "shim")); err != nil {
		t.Fatal(err)
	}
	has("shim", "problem", "containerd cannot start")
	if err := os.Rename(filepath.Join(n.Dir, "shim"), filepath.Join(n.Bin, "containerd-shim-snap-v2")); err != nil {
		t.Fatal(err)
	}
	old, err := os.ReadFile(n.SnapConfig())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(n.SnapConfig(), append(old, "rot = 1\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	has("configuration", "problem", "rot")
	if err := os.WriteFile(n.SnapConfig(), old, 0o600); err != nil {
		t.Fatal(err)
	}
	replaceCRIU(t, n, "")
	has("criu", "problem", "has none")
	if ok, _ := doctor(); ok {
		t.Error("a node without CRIU is called well")
	}
}

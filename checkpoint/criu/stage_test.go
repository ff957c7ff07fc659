package criu

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestStage(t *testing.T) {
	files := maps.Clone(tree2(t))
	files["utsns-11.img"] = utsImage("captured", "old")
	src, dst := plantImages(t, files), t.TempDir()
	if err := Stage(dst, src, "clone-1", "example"); err != nil {
		t.Fatal(err)
	}
	if err := CheckImages(dst); err != nil {
		t.Error(err)
	}
	for name := range files {
		a, err := os.Stat(filepath.Join(src, name))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.Stat(filepath.Join(dst, name))
		if err != nil {
			t.Fatal(err)
		}
		if os.SameFile(a, b) == (name == "utsns-11.img") {
			t.Errorf("%s: linked %v", name, os.SameFile(a, b))
		}
	}
	got, err := os.ReadFile(filepath.Join(dst, "utsns-11.img"))
	if err != nil {
		t.Fatal(err)
	}
	if want := string(utsImage("clone-1", "example")); string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if old, err := os.ReadFile(filepath.Join(src, "utsns-11.img")); err != nil || !bytes.Equal(old, files["utsns-11.img"]) {
		t.Errorf("the checkpoint's own image changed: %q, %v", old, err)
	}
}

func TestUTSImage(t *testing.T) {
	// Written by CRIU 4.2.1.
	const want = "\x19CVT\x03\x32\x47\x54\x0c\x00\x00\x00\x0a\x02vm\x12\x06(none)"
	if got := string(utsImage("vm", "(none)")); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestStageErrors(t *testing.T) {
	src := plantImages(t, tree2(t))
	if err := Stage(t.TempDir(), src, strings.Repeat("h", maxName+1), ""); err == nil {
		t.Error("took a host name that the kernel refuses")
	}
	if err := Stage(filepath.Join(src, "gone"), src, "h", ""); err == nil {
		t.Error("staged into a directory that is not there")
	}
	if err := Stage(t.TempDir(), filepath.Join(src, "gone"), "h", ""); err == nil {
		t.Error("staged from a directory that is not there")
	}
}

package spec

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"testing"

	"github.com/containerd-snap/snap/checkpoint"
)

// TestLoadAnnotations holds the short way to what the long way reads.
func TestLoadAnnotations(t *testing.T) {
	config, err := os.ReadFile("testdata/cri.json")
	if err != nil {
		t.Fatal(err)
	}
	dir := bundle(t, string(config))
	s, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	got, err := LoadAnnotations(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) == 0 || !maps.Equal(got, s.Annotations) {
		t.Errorf("annotations are %v, want %v", got, s.Annotations)
	}
	if got, err := LoadAnnotations(bundle(t, "{}")); err != nil || len(got) != 0 {
		t.Errorf("without annotations: %v, %v; want none", got, err)
	}
	if _, err := LoadAnnotations(bundle(t, `{"annotations": []}`)); !errors.Is(err, checkpoint.ErrInvalid) {
		t.Errorf("error is %v, want ErrInvalid", err)
	}
	if _, err := LoadAnnotations(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error is %v, want ErrNotExist", err)
	}
}

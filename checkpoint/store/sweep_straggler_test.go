package store

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// TestSweepMeetsAStraggler: somebody still writes to a draft whose owner is dead.
func TestSweepMeetsAStraggler(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(s.path(draftsDir), "ABANDONED")
	images := filepath.Join(dir, imagesName)
	if err := os.MkdirAll(images, 0o700); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := range 200 {
			// It fails once the directory has gone.
			_ = os.WriteFile(filepath.Join(images, strconv.Itoa(n)), nil, 0o600)
			time.Sleep(time.Millisecond)
		}
	}()
	for {
		if _, err := s.Sweep(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(dir); os.IsNotExist(err) {
			break
		}
	}
	<-done
}

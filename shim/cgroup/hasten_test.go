package cgroup

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestOwn: Hasten moves this process nowhere.
func TestOwn(t *testing.T) {
	dir, err := own()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "cgroup.procs")
	if err := os.WriteFile(file, []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(file)
	if err != nil || !slices.Contains(strings.Fields(string(data)), strconv.Itoa(os.Getpid())) {
		t.Errorf("process %d is not in %s: %v", os.Getpid(), dir, err)
	}
	if again, err := own(); err != nil || again != dir {
		t.Errorf("it was in %s, and is in %s (%v)", dir, again, err)
	}
}

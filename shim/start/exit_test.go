package start

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd-snap/snap/shim/lifecycle"
)

func TestExitIsKept(t *testing.T) {
	bundle := t.TempDir()
	if _, err := ReadExit(bundle); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nothing was kept: %v", err)
	}
	for _, want := range []lifecycle.Exit{
		{PID: 7, Status: 137, At: time.Unix(1700000000, 42).UTC()},
		{PID: 8, At: time.Unix(1700000001, 0).UTC()},
	} {
		if err := WriteExit(bundle, want); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadExit(bundle); err != nil || got != want {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
	}
	if entries, err := os.ReadDir(bundle); err != nil || len(entries) != 1 {
		t.Errorf("files left: %v, %v", entries, err)
	}
	if err := os.WriteFile(filepath.Join(bundle, exitFile), []byte(`{"PID":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadExit(bundle); err == nil {
		t.Error("half a file was read")
	}
	if err := WriteExit(filepath.Join(bundle, "gone"), lifecycle.Exit{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a bundle: %v", err)
	}
}

func FuzzReadExit(f *testing.F) {
	f.Add([]byte(`{"PID":7,"Status":3,"At":"2024-01-02T03:04:05Z"}`))
	f.Add([]byte(`{}`))
	f.Add([]byte(`[`))
	f.Fuzz(func(t *testing.T, data []byte) {
		bundle := t.TempDir()
		if err := os.WriteFile(filepath.Join(bundle, exitFile), data, 0o600); err != nil {
			t.Fatal(err)
		}
		e, err := ReadExit(bundle)
		if err != nil {
			return
		}
		if err := WriteExit(bundle, e); err != nil {
			t.Fatal(err)
		}
		if again, err := ReadExit(bundle); err != nil || again.PID != e.PID || again.Status != e.Status || !again.At.Equal(e.At) {
			t.Errorf("%+v became %+v, %v", e, again, err)
		}
	})
}

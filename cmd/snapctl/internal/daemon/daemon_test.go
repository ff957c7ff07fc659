package daemon

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestConnect(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// One that listens, and closes each connection.
	silent := filepath.Join(dir, "s")
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", silent)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	for address, want := range map[string]string{
		filepath.Join(dir, "absent"): "there is no such socket; start it, or name its socket with --address or CONTAINERD_ADDRESS",
		file:                         "it is no socket; name its socket",
		silent:                       "see its log",
	} {
		_, _, err := Connect(t.Context(), address, "default")
		if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), address) {
			t.Errorf("%s: %v, want %q", address, err, want)
		}
	}
}

func TestDefaultAddress(t *testing.T) {
	t.Setenv(EnvAddress, "")
	if got := DefaultAddress(); got != "/run/containerd/containerd.sock" {
		t.Errorf("DefaultAddress = %s", got)
	}
	t.Setenv(EnvAddress, "/x")
	if got := DefaultAddress(); got != "/x" {
		t.Errorf("DefaultAddress = %s", got)
	}
}

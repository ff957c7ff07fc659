package rebind

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// images is a directory with a files.img that holds one socket: TCP, listening at 0.0.0.0:80.
func images(t *testing.T) string {
	t.Helper()
	const file = "\x19\x43\x56\x54\x38\x31\x30\x56" + // the magic numbers
		"\x1c\x00\x00\x00" + "\x08\x04\x10\x05\x22\x16" +
		"\x08\x05\x18\x02\x20\x01\x28\x06\x30\x0a\x38\x50\x40\x00\x48\x02\x50\x08\x58\x00\x60\x00"
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "files.img"), []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// reusing listens as CRIU does, and then takes its consent back.
func reusing(t *testing.T) error {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	options := func(on int) error {
		return errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, on), unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, on))
	}
	if err := errors.Join(options(1), unix.Bind(fd, &unix.SockaddrInet4{Port: 80})); err != nil {
		return err
	}
	return errors.Join(unix.Listen(fd, 8), options(0))
}

// TestGuard: CRIU can listen at a place that is kept, nobody else can keep it meanwhile or
// afterwards, and the kernel does not say so of its own accord.
func TestGuard(t *testing.T) {
	dir := images(t)
	inNetwork(t, func(path string) {
		g, err := Keep(path, dir)
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := Keep(path, dir); !errors.Is(err, ErrTaken) {
			t.Errorf("kept twice: %v", err)
		}
		if err := reusing(t); err != nil {
			t.Errorf("CRIU cannot listen: %v", err)
		}
		g.Close()
		g.Close()
		if _, err := Keep(path, dir); !errors.Is(err, ErrTaken) {
			t.Errorf("kept where a restored program listens: %v", err)
		}
	})
	inNetwork(t, func(path string) {
		l, err := net.Listen("tcp", "10.1.0.9:80")
		if err != nil {
			t.Error(err)
			return
		}
		defer l.Close()
		if _, err := Keep(path, dir); !errors.Is(err, ErrTaken) {
			t.Errorf("kept where another program listens: %v", err)
		}
	})
	if _, err := Keep("/proc/self/ns/net", t.TempDir()); err == nil {
		t.Error("images without files.img are fine")
	}
	var none *Guard
	none.Close()
}

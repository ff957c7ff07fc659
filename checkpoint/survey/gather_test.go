package survey

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/oci/spec"
)

func TestParseStat(t *testing.T) {
	for line, want := range map[string]stat{
		"7 (sh) S 1 7 7 0":             {pid: 7, parent: 1, command: "sh", state: 'S'},
		"8 (a) R (b (c) D 7 7 6 34816": {pid: 8, parent: 7, command: "a) R (b (c", state: 'D'},
		"9 () Z 7":                     {pid: 9, parent: 7, state: 'Z'},
	} {
		if got, ok := parseStat(line); !ok || got != want {
			t.Errorf("parseStat(%q) = %+v, %v", line, got, ok)
		}
	}
	for _, line := range []string{"", "7", "7 (sh", "x (sh) S 1", "7 (sh) S", "7 (sh) S x", ")("} {
		if got, ok := parseStat(line); ok {
			t.Errorf("parseStat(%q) = %+v", line, got)
		}
	}
}

func TestParseMounts(t *testing.T) {
	const info = `24 1 0:21 / / rw,relatime shared:1 - overlay overlay rw,lowerdir=/a
25 24 8:1 /sub /with\040blank ro - ext4 /dev/sda1 rw
not a mount
`
	want := []Mount{{24, "0:21", "overlay", "/", "/"}, {25, "8:1", "ext4", "/sub", "/with blank"}}
	if got := parseMounts(info); !reflect.DeepEqual(got, want) {
		t.Errorf("parseMounts = %+v", got)
	}
}

func TestParseTCP(t *testing.T) {
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 100 1
   1: 0100007F:1F90 0200007F:0050 01 00000000:00000000 00:00000000 00000000     0        0 101 1
   2: 0000000000000000FFFF00000100007F:1F90 0000000000000000FFFF00000200007F:0051 08 00000000:00000000 00:00000000 00000000 0 0 102 1
   3: 00000000000000000000000001000000:1F90 00000000000000000000000001000000:0052 06 00000000:00000000 00:00000000 00000000 0 0 0 1
`
	got := map[uint64]connection{}
	parseTCP(table, got)
	want := map[uint64]connection{101: {"127.0.0.1:8080", "127.0.0.2:80"}, 102: {"127.0.0.1:8080", "127.0.0.2:81"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("parseTCP = %+v", got)
	}
}

func TestFileInfo(t *testing.T) {
	f := File{TTY: -1}
	f.info("pos:\t0\nflags:\t02\nmnt_id:\t42\ntty-index:\t7\ninotify wd:1 ino:3 sdev:800001 mask:2\ninotify wd:2 ino:4 sdev:32 mask:2\n")
	if f.MountID != 42 || f.TTY != 7 || !reflect.DeepEqual(f.Watches, []string{"8:1", "0:50"}) {
		t.Errorf("info = %+v", f)
	}
}

func TestFileInfoOfEventfd(t *testing.T) {
	for text, counts := range map[string]bool{
		"eventfd-count: 3\neventfd-id: 1\neventfd-semaphore: 1\n": true,
		"eventfd-count: 3\neventfd-id: 1\neventfd-semaphore: 0\n": false,
		"eventfd-count: 1\n": false, // as older kernels have it
	} {
		f := File{TTY: -1}
		if f.info(text); f.Counts != counts {
			t.Errorf("%q: %+v", text, f)
		}
	}
}

// TestGather looks at this very process, whose resources are known.
func TestGather(t *testing.T) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := (&net.Dialer{}).DialContext(t.Context(), "unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	tcp := loopback(t)
	gone, err := os.Create(filepath.Join(t.TempDir(), "gone"))
	if err != nil {
		t.Fatal(err)
	}
	defer gone.Close()
	if err := os.Remove(gone.Name()); err != nil {
		t.Fatal(err)
	}
	watch, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(watch)
	if _, err := unix.InotifyAddWatch(watch, t.TempDir(), unix.IN_CREATE); err != nil {
		t.Fatal(err)
	}

	s, err := Gather(&specs.Spec{}, spec.TCPClose, os.Getpid(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p := s.Processes[0]
	if p.PID != os.Getpid() || p.Command == "" || p.Resident == 0 || p.Namespaces["pid"] == "" || len(s.Mounts) == 0 || s.Free <= 0 {
		t.Errorf("gathered %+v", p)
	}
	found := map[string]bool{}
	for _, f := range p.Files {
		switch {
		case f.Socket != nil && f.Socket.Protocol == "UNIX-STREAM" && f.Socket.Peer != 0:
			found["unix"] = true
		case f.Socket != nil && f.Socket.Connected && f.Socket.Local == tcp:
			found["tcp"] = true
		case f.Target == gone.Name()+" (deleted)" && f.Links == 0 && f.Type.IsRegular() && f.MountID != 0:
			found["deleted"] = true
		case f.FD == watch && len(f.Watches) == 1:
			found["watch"] = true
		}
	}
	for _, what := range []string{"unix", "tcp", "deleted", "watch"} {
		if !found[what] {
			t.Errorf("no %s among %+v", what, p.Files)
		}
	}
	if _, err := Gather(&specs.Spec{}, spec.TCPClose, 1<<30, t.TempDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of no process: %v", err)
	}
}

// loopback makes a connection and returns the address of one of its ends.
func loopback(t *testing.T) string {
	t.Helper()
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	c, err := (&net.Dialer{}).DialContext(context.WithoutCancel(t.Context()), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.LocalAddr().String()
}

func FuzzParse(f *testing.F) {
	f.Add("7 (sh) S 1 7 7 0", []byte{0})
	f.Add("24 1 0:21 / / rw - overlay overlay rw", make([]byte, 64))
	f.Fuzz(func(_ *testing.T, text string, raw []byte) {
		parseStat(text)
		parseMounts(text)
		parseMaps(text)
		parseTCP(text, map[uint64]connection{})
		(&File{}).info(text)
		parsePeers(raw, map[uint64]uint64{})
	})
}

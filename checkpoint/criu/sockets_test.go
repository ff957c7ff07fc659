package criu

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint/criu/image"
)

// words are the fields of an address as CRIU writes it.
func words(num int, address string) []any {
	var all []any
	for b := netip.MustParseAddr(address).AsSlice(); len(b) > 0; b = b[4:] {
		all = append(all, num, int(binary.NativeEndian.Uint32(b)))
	}
	return all
}

// listener is a file_entry of a listening socket with these options.
func listener(id int, options, ip []byte) []byte {
	entry := []any{1, id, 2, 777, 3, unix.AF_INET, 4, unix.SOCK_STREAM, 5, unix.IPPROTO_TCP, 6, stateListen, 7, 80, 8, 0,
		9, unix.O_RDWR | unix.O_NONBLOCK, 10, 128, 12, 0, 13, message(1, 0, 2, 0, 3, 0, 4, 0, 5, 0), 14, options, 16, ip, 20, message(2, 1)}
	return message(1, typeInet, 2, id, 4, message(append(entry, words(11, "10.0.0.2")...)...))
}

func socketImages(t testing.TB) map[string][]byte {
	files := maps.Clone(tree2(t))
	entry := []any{1, 6, 3, unix.AF_INET6, 4, unix.SOCK_DGRAM, 5, unix.IPPROTO_UDP, 6, 1, 7, 53, 8, 514,
		13, message(5, 9), 14, message(1, 2, 2, 2), 15, 1, 16, message(1, 1, 5, 1), 17, []byte("eth0")}
	entry = append(append(entry, words(11, "fd00::2")...), words(12, "fd00::3")...)
	six := message(1, typeInet, 2, 6, 4, message(entry...))
	files["files.img"] = imageOf("files",
		message(1, typeRegular, 2, 4, 3, message(1, 4, 6, []byte("/etc/passwd"))),
		listener(5, message(1, 87040, 2, 131072, 3, 0, 5, 2, 6, 500, 7, 1, 8, 0, 15, []byte("eth0"), 17, 0, 19, 1, 24, 9, 25, 0), message(6, 16)),
		six)
	files["fdinfo-5.img"] = imageOf("fdinfo", message(1, 4, 2, 0, 3, typeRegular, 4, 3), message(1, 5, 2, 1, 3, typeInet, 4, 4), message(1, 6, 2, 0, 3, typeInet, 4, 5))
	files["fdinfo-6.img"] = imageOf("fdinfo")
	return files
}

func TestSockets(t *testing.T) {
	all, err := Sockets(plantImages(t, socketImages(t)))
	if err != nil || len(all) != 2 {
		t.Fatalf("%+v, %v", all, err)
	}
	s := all[0]
	if s.ID != 5 || s.Family != unix.AF_INET || s.Type != unix.SOCK_STREAM || s.Protocol != unix.IPPROTO_TCP || !s.Listening || s.Backlog != 128 ||
		s.Local.String() != "10.0.0.2:80" || s.Remote.Port() != 0 || s.Flags != unix.O_RDWR|unix.O_NONBLOCK || s.Device != "eth0" ||
		!s.ReuseAddress || s.ReusePort || s.FreeBind || s.Peculiar {
		t.Errorf("%+v", s)
	}
	want := []string{"1:32=43520", "1:33=65536", "1:13=linger 9", "1:9=1", "1:72=0", "1:20=time 2.500", "0:1=16", "6:1=1"}
	var got []string
	for _, o := range s.Options {
		value := strconv.Itoa(o.Value)
		switch {
		case o.Linger != nil:
			value = fmt.Sprint("linger ", o.Linger.Linger)
		case o.Time != nil:
			value = fmt.Sprintf("time %d.%d", o.Time.Sec, o.Time.Usec)
		}
		got = append(got, fmt.Sprintf("%d:%d=%s", o.Level, o.Name, value))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("options %v, want %v", got, want)
	}
	s = all[1]
	if s.Local.String() != "[fd00::2]:53" || s.Remote.String() != "[fd00::3]:514" || s.Listening || !s.V6Only || !s.FreeBind || !s.Peculiar || s.Scope != "eth0" ||
		!slices.Contains(s.Options, SocketOption{Level: unix.SOL_IPV6, Name: unix.IPV6_RECVPKTINFO, Value: 1}) {
		t.Errorf("%+v", s)
	}
}

// TestLendSockets: what is changed is changed in the staged images alone.
func TestLendSockets(t *testing.T) {
	src, dst := plantImages(t, socketImages(t)), t.TempDir()
	if err := Stage(dst, src, "clone", ""); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(filepath.Join(src, "files.img"))
	if err != nil {
		t.Fatal(err)
	}
	if err := LendSockets(dst, map[uint32]string{5: "socket-five"}); err != nil {
		t.Fatal(err)
	}
	if after, err := os.ReadFile(filepath.Join(src, "files.img")); err != nil || !bytes.Equal(after, before) {
		t.Errorf("the registered image was changed, %v", err)
	}
	if err := CheckImages(dst); err != nil {
		t.Error(err)
	}
	left, err := Sockets(dst)
	if err != nil || len(left) != 1 || left[0].ID != 6 {
		t.Errorf("%+v, %v", left, err)
	}
	files, err := messages(dst, "files.img")
	if err != nil || len(files) != 3 || !strings.Contains(string(files[1].Encode()), "/socket-five") {
		t.Errorf("%v, %v", files, err)
	}
	fds, err := messages(dst, "fdinfo-5.img")
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []uint64{typeRegular, typeRegular, typeInet} {
		if kind := fds[i].Number(3); kind != want {
			t.Errorf("descriptor %d is of kind %d, want %d", i, kind, want)
		}
	}
}

func TestSocketsDamaged(t *testing.T) {
	for what, rec := range map[string][]byte{
		"no address":       message(1, typeInet, 2, 5, 4, message(1, 5, 3, unix.AF_INET)),
		"a short address":  message(1, typeInet, 2, 5, 4, message(1, 5, 3, unix.AF_INET6, 11, 1, 12, 1)),
		"options cut off":  listener(5, []byte{8}, nil),
		"no message":       message(1, typeInet, 2, 5, 4, []byte{0xff}),
		"a bad ip message": listener(5, nil, []byte{0xff}),
	} {
		files := socketImages(t)
		files["files.img"] = imageOf("files", rec)
		if all, err := Sockets(plantImages(t, files)); err == nil || !strings.Contains(err.Error(), "files.img") {
			t.Errorf("%s: %+v, %v", what, all, err)
		}
	}
	dir := plantImages(t, map[string][]byte{"files.img": {1, 2, 3}})
	if err := LendSockets(dir, map[uint32]string{5: "five"}); err == nil || !strings.Contains(err.Error(), "files.img") {
		t.Errorf("%v", err)
	}
}

func FuzzSockets(f *testing.F) {
	f.Add(listener(5, message(1, 2, 16, 7), message(1, 1)))
	f.Add(message(1, typeRegular, 2, 4))
	f.Fuzz(func(t *testing.T, rec []byte) {
		file, err := image.Parse(rec)
		if err != nil || file.Number(fileType) != typeInet {
			return
		}
		s, err := parseSocket(file.Text(fileInet))
		if err == nil && (!s.Local.IsValid() || !s.Remote.IsValid()) {
			t.Errorf("a socket without an address: %+v", s)
		}
		id := uint32(file.Number(fileID))
		if lent := regularFile(id, "key"); lent.Number(fileType) != typeRegular || lent.Number(fileID) != uint64(id) {
			t.Errorf("file %d became %v", id, lent)
		}
	})
}

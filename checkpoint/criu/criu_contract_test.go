package criu

import (
	"context"
	"errors"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The contract with the installed CRIU: that it accepts every option of Config,
// at dump and at restore, and that its images, statistics and logs are those that this
// package reads. The program is a sleep that inherited what the options are about.

// installed finds the CRIU to test with, in PATH or among the tools of the set-up.
func installed(t *testing.T) Binary {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test dumps and restores a process: run it as root")
	}
	b, err := Find()
	if dir := os.Getenv("SNAP_TOOLS"); err != nil && dir != "" {
		t.Setenv("PATH", os.Getenv("PATH")+":"+filepath.Join(dir, "bin"))
		b, err = Find()
	}
	if err != nil {
		t.Fatalf("%v; or run `make setup` and set SNAP_TOOLS to its directory", err)
	}
	return b
}

// sleeper is the program under test: a process that holds a listener, a connection, a locked file
// and a deleted file.
type sleeper struct {
	pid  int
	port string
	// peer is the other end of its connection.
	peer net.Conn
	lock string
	// reaped is closed when the original process has ended.
	reaped <-chan struct{}
}

func startSleeper(t *testing.T, ghost int64) *sleeper {
	t.Helper()
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // CRIU cannot save such sockets
	ln, err := lc.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	peer, err := net.Dial("tcp4", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { peer.Close() })
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	dir := t.TempDir()
	locked, err := os.Create(filepath.Join(dir, "locked"))
	if err != nil {
		t.Fatal(err)
	}
	defer locked.Close()
	if err := syscall.Flock(int(locked.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	deleted, err := os.Create(filepath.Join(dir, "deleted"))
	if err != nil {
		t.Fatal(err)
	}
	defer deleted.Close()
	if _, err := io.CopyN(deleted, neverZero{}, ghost); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(deleted.Name()); err != nil {
		t.Fatal(err)
	}
	lnFile, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer lnFile.Close()
	connFile, err := conn.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer connFile.Close()

	// What the test itself inherited must not be dumped with it.
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "300")
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{lnFile, connFile, locked, deleted}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	reaped := make(chan struct{})
	go func() {
		cmd.Wait()
		close(reaped)
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-reaped
	})
	_, port, err := net.SplitHostPort(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return &sleeper{pid: cmd.Process.Pid, port: port, peer: peer, lock: locked.Name(), reaped: reaped}
}

// neverZero reads as ones.
type neverZero struct{}

func (neverZero) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 1
	}
	return len(p), nil
}

// run runs criu with a config file and returns what it said beside its log.
func (b Binary) run(t *testing.T, images string, config []byte, args ...string) (string, error) {
	t.Helper()
	conf := filepath.Join(t.TempDir(), "criu.conf")
	if err := os.WriteFile(conf, config, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, b.Path, append(args, "--images-dir", images, "--config", conf)...)
	out := filepath.Join(t.TempDir(), "out")
	// A file and not a pipe: the restored process may keep it open.
	f, err := os.Create(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd.Stdout, cmd.Stderr = f, f
	err = cmd.Run()
	said, readErr := os.ReadFile(out)
	return string(said), errors.Join(err, readErr)
}

func (b Binary) dump(t *testing.T, images string, pid int, config []byte, args ...string) (string, error) {
	t.Helper()
	return b.run(t, images, config, append([]string{"dump", "--tree", strconv.Itoa(pid), "--log-file", "dump.log", "-v4"}, args...)...)
}

func encode(t *testing.T, c Config) []byte {
	t.Helper()
	data, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// everything sets all options that concern no single descriptor.
func everything() Config {
	c := DefaultConfig()
	c.Verbosity = 4
	c.External = []ExternalFile{{MountID: 1, Inode: 2}}
	return c
}

func TestContractDumpAndRestore(t *testing.T) {
	for name, config := range map[string]Config{"default": DefaultConfig(), "everything": everything()} {
		t.Run(name, func(t *testing.T) { dumpAndRestore(t, installed(t), config) })
	}
}

func dumpAndRestore(t *testing.T, b Binary, config Config) {
	const ghost = 2 << 20
	s := startSleeper(t, ghost)

	// A dump that leaves the program running leaves its connection alone.
	images := t.TempDir()
	if out, err := b.dump(t, images, s.pid, encode(t, config), "--leave-running"); err != nil {
		t.Fatalf("dump: %v %s\n%v", err, out, DiagnoseFile(filepath.Join(images, "dump.log")))
	}
	if !connected(t, s.peer) {
		t.Error("the dump closed the connection of the running program")
	}
	checkContents(t, images)

	// One that ends it, and a restore.
	images = t.TempDir()
	if out, err := b.dump(t, images, s.pid, encode(t, config)); err != nil {
		t.Fatalf("dump: %v %s\n%v", err, out, DiagnoseFile(filepath.Join(images, "dump.log")))
	}
	<-s.reaped
	if connected(t, s.peer) {
		t.Error("the program ended and its connection lives")
	}
	if err := CheckImages(images); err != nil {
		t.Error(err)
	}
	out, err := b.run(t, images, encode(t, config), "restore", "--restore-detached", "--log-file", "restore.log", "-v4")
	d := DiagnoseFile(filepath.Join(images, "restore.log"))
	if err != nil {
		t.Fatalf("restore: %v %s\n%v", err, out, d)
	}
	t.Cleanup(func() { syscall.Kill(s.pid, syscall.SIGKILL) })
	if d.Cause != "" {
		t.Errorf("diagnosis of a restore that succeeded: %v", d)
	}
	conn, err := net.Dial("tcp4", "127.0.0.1:"+s.port)
	if err != nil {
		t.Errorf("the restored program does not listen: %v", err)
	} else {
		conn.Close()
	}
	f, err := os.Open(s.lock)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); !errors.Is(err, syscall.EWOULDBLOCK) {
		t.Errorf("the restored program does not hold its lock: %v", err)
	}
	if n := openSockets(t, s.pid); n != 2 {
		t.Errorf("the restored program has %d sockets, not the listener and a closed one", n)
	}
	if fi, err := os.Stat("/proc/" + strconv.Itoa(s.pid) + "/fd/6"); err != nil || fi.Size() != ghost {
		t.Errorf("the deleted file: %v, %v", fi, err)
	}
}

// connected says whether the other end of an idle connection is open.
func connected(t *testing.T, c net.Conn) bool {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	_, err := c.Read(make([]byte, 1))
	return errors.Is(err, os.ErrDeadlineExceeded)
}

func openSockets(t *testing.T, pid int) int {
	t.Helper()
	dir := "/proc/" + strconv.Itoa(pid) + "/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range entries {
		if target, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil && strings.HasPrefix(target, "socket:") {
			n++
		}
	}
	return n
}

func checkContents(t *testing.T, images string) {
	t.Helper()
	if err := CheckImages(images); err != nil {
		t.Error(err)
	}
	if d := DiagnoseFile(filepath.Join(images, "dump.log")); d.Cause != "" {
		t.Errorf("diagnosis of a dump that succeeded: %v", d)
	}
	if n, err := Processes(images); err != nil || n != 1 {
		t.Errorf("%d processes, %v", n, err)
	}
	// A pages file that is one page short must never reach CRIU, which spins on it.
	pages, err := filepath.Glob(filepath.Join(images, "pages-*.img"))
	if err != nil || len(pages) != 1 {
		t.Fatalf("pages %v, %v", pages, err)
	}
	fi, err := os.Stat(pages[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(pages[0], fi.Size()-int64(os.Getpagesize())); err != nil {
		t.Fatal(err)
	}
	if err := CheckImages(images); !errors.Is(err, ErrImages) || !strings.Contains(err.Error(), filepath.Base(pages[0])) {
		t.Errorf("short pages: %v", err)
	}
}

// What CRIU refuses, and how it says so.
func TestContractRefusals(t *testing.T) {
	b := installed(t)
	s := startSleeper(t, 2<<20)
	for name, tc := range map[string]struct {
		change func(*Config)
		cause  string
	}{
		"connection":   {func(c *Config) { c.TCP = TCPRefuse }, "established TCP connection"},
		"deleted file": {func(c *Config) { c.GhostLimit = 1 << 20 }, "more than the limit"},
		"file lock":    {func(c *Config) { c.FileLocks = false }, "holds a file lock"},
	} {
		t.Run(name, func(t *testing.T) {
			config := DefaultConfig()
			tc.change(&config)
			images := t.TempDir()
			out, err := b.dump(t, images, s.pid, encode(t, config), "--leave-running")
			if err == nil {
				t.Fatalf("dumped: %s", out)
			}
			if d := DiagnoseFile(filepath.Join(images, "dump.log")); !strings.Contains(d.Cause, tc.cause) || d.Remedy == "" {
				t.Errorf("got %v; lines %q", d, d.Lines)
			}
			if !connected(t, s.peer) {
				t.Error("a refused dump closed a connection")
			}
		})
	}
	t.Run("unknown option", func(t *testing.T) {
		images := t.TempDir()
		out, err := b.dump(t, images, s.pid, []byte("snap-no-such-option\n"), "--leave-running")
		if err == nil {
			t.Fatalf("accepted: %s", out)
		}
		if d := DiagnoseFile(filepath.Join(images, "dump.log")); d.Cause != nothingWritten().Cause {
			t.Errorf("got %v", d)
		}
	})
	t.Run("descriptor that is not open", func(t *testing.T) {
		config := encode(t, Config{InheritFD: []InheritFD{{FD: 200, Key: "x"}}})
		out, err := b.dump(t, t.TempDir(), s.pid, config, "--leave-running")
		if err == nil || !strings.Contains(out, "inherit fd 200") {
			t.Errorf("got %v: %s", err, out)
		}
	})
}

func TestContractVersion(t *testing.T) {
	v, err := installed(t).Version(t.Context())
	if err != nil || v < MinVersion {
		t.Errorf("got %d, %v", v, err)
	}
}

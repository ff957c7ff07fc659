package manager

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/containerd-snap/snap/shim/lifecycle"
	"github.com/containerd-snap/snap/shim/start"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// enterBundle makes a bundle the working directory, as containerd does.
func enterBundle(t *testing.T, annotations map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	data, err := json.Marshal(specs.Spec{Annotations: annotations})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "config.json"), data, 0o600))
	t.Chdir(dir)
	return dir
}

func TestGroupOf(t *testing.T) {
	for name, c := range map[string]struct {
		annotations map[string]string
		want        string
	}{
		"none":        {nil, "id"},
		"others":      {map[string]string{"io.kubernetes.cri.container-name": "c"}, "id"},
		"a pod":       {map[string]string{"io.kubernetes.cri.sandbox-id": "pod"}, "pod"},
		"runc's":      {map[string]string{"io.containerd.runc.v2.group": "g"}, "g"},
		"both":        {map[string]string{"io.containerd.runc.v2.group": "g", "io.kubernetes.cri.sandbox-id": "pod"}, "g"},
		"empty group": {map[string]string{"io.containerd.runc.v2.group": ""}, ""},
	} {
		enterBundle(t, c.annotations)
		if got, err := groupOf(".", "id"); err != nil || got != c.want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	t.Chdir(t.TempDir())
	if _, err := groupOf(".", "id"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a bundle: %v", err)
	}
}

func TestInfo(t *testing.T) {
	m := New("io.containerd.snap.v2", "v1.2.3", time.Now())
	for name, in := range map[string]proto.Message{
		"no options": nil, "runc's": &options.Options{SystemdCgroup: true}, "CRI's": &runtimeoptions.Options{ConfigPath: "/c"},
	} {
		var data []byte
		if in != nil {
			a, err := typeurl.MarshalAnyToProto(in)
			must(t, err)
			data, err = proto.Marshal(a)
			must(t, err)
		}
		info, err := m.Info(t.Context(), bytes.NewReader(data))
		must(t, err)
		if info.GetName() != m.Name() || info.GetVersion().GetVersion() != "v1.2.3" {
			t.Errorf("%s: %v", name, info)
		}
		if (info.GetOptions() == nil) != (in == nil) {
			t.Errorf("%s: options %v", name, info.GetOptions())
		}
		if in != nil {
			if got, err := typeurl.UnmarshalAny(info.GetOptions()); err != nil || !proto.Equal(got.(proto.Message), in) {
				t.Errorf("%s: %v, %v", name, got, err)
			}
		}
		// What CRI looks for, or a runtime is taken to lack user namespaces.
		v, err := typeurl.UnmarshalAny(info.GetFeatures())
		must(t, err)
		f, ok := v.(*features.Features)
		if !ok || len(f.Linux.Namespaces) == 0 || f.Linux.MountExtensions == nil || !*f.Linux.MountExtensions.IDMap.Enabled {
			t.Errorf("%s: features %+v", name, v)
		}
	}
	if _, err := m.Info(t.Context(), strings.NewReader("nonsense")); err == nil || !strings.Contains(err.Error(), "runtime options") {
		t.Errorf("nonsense: %v", err)
	}
}

// server is what a started server says of itself.
type server struct {
	pid           int
	address, args string
}

func dial(t *testing.T, address string) server {
	t.Helper()
	c, err := net.Dial("unix", strings.TrimPrefix(address, "unix://"))
	must(t, err)
	defer c.Close()
	must(t, c.SetDeadline(time.Now().Add(20*time.Second)))
	data, err := io.ReadAll(c)
	must(t, err)
	var s server
	if _, err := fmt.Sscan(string(data), &s.pid, &s.address); err != nil {
		t.Fatalf("%q: %v", data, err)
	}
	_, s.args, _ = strings.Cut(string(data), s.address)
	s.args = strings.TrimSpace(s.args)
	return s
}

// kill ends a server as an operator or the kernel might, and waits for it: it
// is our child, as the manager's process is ours here.
func kill(t *testing.T, s server) {
	t.Helper()
	must(t, unix.Kill(s.pid, unix.SIGKILL))
	if _, err := unix.Wait4(s.pid, nil, 0, nil); err != nil {
		t.Error(err)
	}
}

func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "s") //nolint:usetesting // its path is too long for a socket
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func startServer(t *testing.T, p *bootapi.BootstrapParams) (*bootapi.BootstrapResult, error) {
	t.Helper()
	return New("snap", "1", time.Now()).Start(namespaces.WithNamespace(t.Context(), "test"), p)
}

// One server serves a group; a dead one's socket is taken over.
func TestStart(t *testing.T) {
	dir := socketDir(t)
	pod := map[string]string{"io.kubernetes.cri.sandbox-id": "pod"}
	params := func(id string) *bootapi.BootstrapParams {
		return &bootapi.BootstrapParams{InstanceID: id, SocketDir: &dir, ContainerdGrpcAddress: "/run/containerd.sock"}
	}
	enterBundle(t, pod)
	first, err := startServer(t, params("pod"))
	must(t, err)
	if first.GetVersion() != 3 || first.GetProtocol() != "ttrpc" || !strings.HasPrefix(first.GetAddress(), "unix://"+dir) {
		t.Errorf("%v", first)
	}
	s := dial(t, first.GetAddress())
	if s.address != first.GetAddress() || s.args != "-namespace test -id pod -address /run/containerd.sock" {
		t.Errorf("%+v", s)
	}
	if sid, err := unix.Getpgid(s.pid); err != nil || sid != s.pid {
		t.Errorf("the server is in process group %d, %v", sid, err)
	}

	enterBundle(t, pod)
	second, err := startServer(t, params("app"))
	must(t, err)
	if again := dial(t, second.GetAddress()); again != s {
		t.Errorf("a container of the same pod got another server: %+v", again)
	}

	enterBundle(t, nil)
	other, err := startServer(t, params("lone"))
	must(t, err)
	lone := dial(t, other.GetAddress())
	if lone.pid == s.pid {
		t.Error("a container of its own shares the pod's server")
	}
	kill(t, lone)

	// The socket is there and nobody answers.
	kill(t, s)
	enterBundle(t, pod)
	third, err := startServer(t, params("pod"))
	must(t, err)
	if third.GetAddress() != first.GetAddress() {
		t.Errorf("the address changed to %s", third.GetAddress())
	}
	next := dial(t, third.GetAddress())
	if next.pid == s.pid {
		t.Error("the dead server answers")
	}
	kill(t, next)
}

func TestStartDebug(t *testing.T) {
	dir := socketDir(t)
	enterBundle(t, nil)
	result, err := startServer(t, &bootapi.BootstrapParams{InstanceID: "a", SocketDir: &dir, LogLevel: bootapi.LogLevel_LOG_LEVEL_DEBUG})
	must(t, err)
	s := dial(t, result.GetAddress())
	defer kill(t, s)
	if !strings.HasSuffix(s.args, "-debug") {
		t.Errorf("arguments %q", s.args)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("sockets %v, %v", entries, err)
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.pid))
	must(t, err)
	if len(fds) < 5 {
		t.Errorf("the server inherited %d descriptors", len(fds))
	}
}

// A start that fails leaves neither a socket nor a server.
func TestStartFails(t *testing.T) {
	dir := socketDir(t)
	enterBundle(t, nil)
	p := &bootapi.BootstrapParams{InstanceID: "a", SocketDir: &dir}
	must(t, p.AddExtension(&options.Options{ShimCgroup: "/snap-test-no-such-cgroup"}))
	if _, err := startServer(t, p); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "/snap-test-no-such-cgroup") {
		t.Errorf("%v", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("sockets %v, %v", entries, err)
	}
	var info unix.Siginfo
	must(t, unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED, nil)) // It is our child; it must have been killed.
	if _, err := New("snap", "1", time.Now()).Start(t.Context(), p); err == nil || !strings.Contains(err.Error(), "namespace") {
		t.Errorf("without a namespace: %v", err)
	}
	t.Chdir(t.TempDir())
	if _, err := startServer(t, p); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a bundle: %v", err)
	}
}

func TestJoinShimCgroup(t *testing.T) {
	name := fmt.Sprintf("snap-test-%d-%d", os.Getpid(), time.Now().UnixNano())
	dir := filepath.Join("/sys/fs/cgroup/memory", name)
	if cgroups.IsCgroup2UnifiedMode() {
		dir = filepath.Join("/sys/fs/cgroup", name)
	}
	must(t, os.Mkdir(dir, 0o755))
	cmd := exec.Command("sleep", "1000")
	must(t, cmd.Start())
	defer func() {
		must(t, cmd.Process.Kill())
		_ = cmd.Wait()
		for os.Remove(dir) != nil {
			time.Sleep(time.Millisecond)
		}
	}()
	must(t, joinShimCgroup("", cmd.Process.Pid))
	must(t, joinShimCgroup("/"+name, cmd.Process.Pid))
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", cmd.Process.Pid))
	must(t, err)
	if !strings.Contains(string(data), "/"+name) {
		t.Errorf("the server is in\n%s", data)
	}
}

// The shim's cgroup comes from runc's options as well as from those of a CRI handler.
func TestShimCgroup(t *testing.T) {
	for want, extensions := range map[string][]proto.Message{
		"":      {},
		"/runc": {&options.Options{ShimCgroup: "/runc"}},
		"/cri":  {&options.CheckpointOptions{}, &runtimeoptions.Options{ConfigBody: []byte(`ShimCgroup = "/cri"`)}},
	} {
		var p bootapi.BootstrapParams
		for _, e := range extensions {
			must(t, p.AddExtension(e))
		}
		if got := shimCgroup(&p); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	var p bootapi.BootstrapParams
	must(t, p.AddExtension(&runtimeoptions.Options{ConfigBody: []byte(`Shim = "/x"`)}))
	if got := shimCgroup(&p); got != "" {
		t.Errorf("options that Create refuses: %q", got)
	}
}

// A socket in the way that is no shim's is not taken for one.
func TestListen(t *testing.T) {
	dir := socketDir(t)
	ctx := namespaces.WithNamespace(t.Context(), "test")
	s, err := listen(ctx, dir, "/c", "g", false)
	must(t, err)
	path := strings.TrimPrefix(s.address, "unix://")
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	again, err := listen(ctx, dir, "/c", "g", false)
	if !errdefs.IsAlreadyExists(err) || again.address != s.address {
		t.Errorf("%v", err)
	}
	// Another containerd, another namespace: another socket.
	other, err := listen(ctx, dir, "/d", "g", false)
	must(t, err)
	third, err := listen(namespaces.WithNamespace(t.Context(), "two"), dir, "/c", "g", false)
	must(t, err)
	if other.address == s.address || third.address == s.address {
		t.Error("the socket is shared")
	}
	sockets{s, other, third}.close(true)
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("sockets %v, %v", entries, err)
	}
	if _, err := listen(context.Background(), dir, "/c", "g", false); err == nil {
		t.Error("no namespace was needed")
	}
}

// Stop tells what is known of the exit, and cleans up as far as it can.
func TestStop(t *testing.T) {
	ctx := namespaces.WithNamespace(t.Context(), "test")
	m := New("snap", "1", time.Now())
	bundle := enterBundle(t, nil)
	id := filepath.Base(bundle)
	must(t, os.WriteFile("options.json", []byte("{"), 0o600)) // Cut off by the shim's death.
	before := time.Now()
	st, err := m.Stop(ctx, id)
	if err != nil || st.ExitStatus != 137 || st.ExitedAt.Before(before) || st.Pid != 0 {
		t.Errorf("nothing is known: %+v, %v", st, err)
	}
	at := time.Unix(1700000000, 0)
	must(t, start.WriteExit(bundle, lifecycle.Exit{PID: 7, Status: 3, At: at}))
	st, err = m.Stop(ctx, id)
	if err != nil || st.ExitStatus != 3 || !st.ExitedAt.Equal(at) || st.Pid != 7 {
		t.Errorf("the exit was kept: %+v, %v", st, err)
	}
	if _, err := m.Stop(t.Context(), id); err == nil {
		t.Error("no namespace was needed")
	}
}

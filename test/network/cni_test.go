package network

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/shim/capture"
	"github.com/containerd-snap/snap/shim/netns"
	"github.com/containerd-snap/snap/test/harness"
	"github.com/containerd-snap/snap/test/harness/run"
)

// onHost puts a container into the host's network.
var onHost = oci.WithHostNamespace(specs.NetworkNamespace)

// networksDir is where ctr looks for networks, pluginsDir for the plugins, cacheDir where
// the library behind it keeps what they answered; none of them can be chosen.
const (
	networksDir = "/etc/cni/net.d"
	pluginsDir  = "/opt/cni/bin"
	cacheDir    = "/var/lib/cni"
)

// plugins puts the network plugins of the set-up where ctr looks for them, in our mount
// namespace alone: what is written goes to dir.
func plugins(dir string) error {
	for i, top := range []string{"/etc", "/opt"} {
		upper, work := filepath.Join(dir, fmt.Sprint("upper", i)), filepath.Join(dir, fmt.Sprint("work", i))
		if err := errors.Join(os.Mkdir(upper, 0o755), os.Mkdir(work, 0o755)); err != nil {
			return err
		}
		if err := unix.Mount("overlay", top, "overlay", 0, "lowerdir="+top+",upperdir="+upper+",workdir="+work); err != nil {
			return fmt.Errorf("mount an overlay on %s: %w", top, err)
		}
	}
	for _, path := range []string{networksDir, pluginsDir, cacheDir} {
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount("tmpfs", cacheDir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0700"); err != nil {
		return fmt.Errorf("mount a tmpfs on %s: %w", cacheDir, err)
	}
	from := filepath.Join(os.Getenv(harness.EnvTools), "cni")
	if err := unix.Mount(from, pluginsDir, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("put the network plugins of %s, which \"make setup\" makes, to %s: %w", from, pluginsDir, err)
	}
	return nil
}

// networks are CNI networks, by the plugin that makes them.
var networks = map[string]string{
	"bridge": `{"type": "bridge", "bridge": "ctr0", "isGateway": true, "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.93.0.0/24"}], [{"subnet": "fd93::/64"}]]}}`,
	"ptp":    `{"type": "ptp", "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.94.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}}`,
}

// TestCNI: three clones that ctr starts at once in a network of each plugin, each at the address
// that the plugin gave it, with the data of the captured Redis and from then on with its own. The
// server listens on its container's own address only.
func TestCNI(t *testing.T) {
	t.Parallel()
	for name, network := range networks {
		// One after the other: ctr has one network.
		t.Run(name, func(t *testing.T) {
			list := fmt.Sprintf(`{"cniVersion": "1.0.0", "name": %q, "plugins": [%s]}`, name, network)
			if err := os.WriteFile(filepath.Join(networksDir, "10-net.conflist"), []byte(list), 0o600); err != nil {
				t.Fatal(err)
			}
			a := ctrRun(t, name+"-original")
			redis(t, a, "PONG", "ping")
			redis(t, a, "OK", "set", "who", "original")
			client := connect(t, a)
			client("before the capture")
			e := a.MustCapture(capture.Request{})
			client("after the capture")

			clones := make([]*run.Container, 3)
			var wg sync.WaitGroup
			for n := range clones {
				wg.Go(func() { clones[n] = ctrRun(t, fmt.Sprint(name, "-clone", n)) })
			}
			wg.Wait()
			seen := map[string]bool{own(t, a): true}
			for _, c := range clones {
				c.MustRestored(e)
				if address := own(t, c); seen[address] {
					t.Errorf("%s is not alone at %s", c.ID(), address)
				} else {
					seen[address] = true
				}
				redis(t, c, "original", "get", "who")
				redis(t, c, "OK", "set", "who", c.ID())
				noRules(t, c.ID(), c.Pid())
			}
			for _, c := range append([]*run.Container{a}, clones...) {
				redis(t, c, map[bool]string{true: "original", false: c.ID()}[c == a], "get", "who")
			}
			client("after the clones")
			noRules(t, "the host", shared.PID())
		})
	}
}

// connect connects to the server of a container. The function that it returns has the server
// echo something over that connection.
func connect(t *testing.T, c *run.Container) (echo func(text string)) {
	t.Helper()
	conn, err := net.Dial("tcp", own(t, c)+":6379")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	answers := bufio.NewReader(conn)
	return func(text string) {
		t.Helper()
		if err := conn.SetDeadline(time.Now().Add(run.Deadline)); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprintf(conn, "echo %q\r\n", text); err != nil {
			t.Fatal(err)
		}
		_, _ = answers.ReadString('\n') // the length of what follows
		if got, err := answers.ReadString('\n'); err != nil || got != text+"\r\n" {
			t.Errorf("the open connection answers %q, %v, want %q", got, err, text)
		}
	}
}

// ctrRun runs Redis as ctr does, in its network. It is removed with the test.
func ctrRun(t *testing.T, id string) *run.Container {
	t.Helper()
	id = fmt.Sprint(id, "-", run.Serial()) // the plugins remember names
	out, err := shared.Ctr(run.Context(t), "run", "--detach", "--cni", "--runtime", harness.Runtime, "--env", "SNAP_TEST="+t.Name(), redisImage, id,
		"sh", "-c", "exec redis-server --protected-mode no --save '' --bind $(hostname -I | cut -d ' ' -f 1)")
	if err != nil {
		t.Errorf("%v: %s", err, out.Stderr)
	}
	c, err := shared.Client().LoadContainer(run.Context(t), id)
	if err != nil {
		t.Error(err)
		return nil
	}
	found := &run.Container{T: t, Node: shared, Container: c, Out: &run.Output{}}
	t.Cleanup(func() {
		if t.Failed() {
			found.Tell()
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), run.Deadline)
		defer cancel()
		if out, err := shared.Ctr(ctx, "tasks", "delete", "--force", id); err != nil {
			t.Errorf("%v: %s", err, out.Stderr)
		}
		found.Task = nil // whose streams ctr has, not we
		if err := found.Remove(); err != nil {
			t.Error(err)
		}
	})
	if found.Task, err = c.Task(run.Context(t), nil); err != nil {
		t.Error(err)
	}
	return found
}

// own is the IPv4 address that a container has.
func own(t *testing.T, c *run.Container) string {
	t.Helper()
	all, err := netns.Addresses(fmt.Sprintf("/proc/%d/ns/net", c.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if a.Address.Is4() {
			return a.Address.String()
		}
	}
	t.Fatalf("%s has the addresses %v", c.ID(), all)
	return ""
}

// redis asks the server of a container from the host, at the container's own address.
func redis(t *testing.T, c *run.Container, want string, command ...string) {
	t.Helper()
	run.Eventually(t, func() error {
		got, err := redisAt(t, own(t, c)+":6379", command)
		if err == nil && got != want {
			return fmt.Errorf("%s: %q answers %q, want %q", c.ID(), command, got, want)
		}
		return err
	})
}

// TestHooks: three clones at once, each of whose networks is made by createRuntime hooks.
func TestHooks(t *testing.T) {
	t.Parallel()
	a := hooked(t, 100)
	before := ask(t, shared.PID(), hookAddress(100)+":7001")
	e := a.MustCapture(capture.Request{})
	clones := make([]*run.Container, 3)
	var wg sync.WaitGroup
	for n := range clones {
		wg.Go(func() { clones[n] = hooked(t, n+1) })
	}
	wg.Wait()
	for n, c := range clones {
		c.MustRestored(e)
		at := hookAddress(n + 1)
		if s := ask(t, shared.PID(), at+":7001"); s.Token != before.Token || s.Bound["7001"] != at || s.Bound["7011"] != at {
			t.Errorf("%s: %+v", c.ID(), s)
		}
		if err := packet(t, shared.PID(), at+":7011"); err != nil {
			t.Errorf("%s: %v", c.ID(), err)
		}
		noRules(t, c.ID(), c.Pid())
	}
	noRules(t, "the host", shared.PID())
}

func hookAddress(n int) string { return fmt.Sprintf("10.92.%d.2", n) }

// hooked starts endpoints with a network that a hook makes: an interface whose other end is the
// host's.
func hooked(t *testing.T, n int) *run.Container {
	t.Helper()
	script := fmt.Sprintf(`set -e
pid=$(sed -n 's/.*"pid":\([0-9]*\).*/\1/p')
ip link add hook%[1]d type veth peer name eth0 netns "$pid"
ip addr add 10.92.%[1]d.1/24 dev hook%[1]d
ip link set hook%[1]d up
nsenter --target "$pid" --net ip addr add 10.92.%[1]d.2/24 dev eth0
nsenter --target "$pid" --net ip link set eth0 up`, n)
	hook := func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: []string{"PATH=" + os.Getenv("PATH")}}}}
		return nil
	}
	c, err := run.Make(t, shared, run.Want{Image: endpointsImage, Args: []string{"/bin/endpoints"}, Opts: []oci.SpecOpts{hook}})
	if err != nil {
		t.Error(err)
		return nil
	}
	t.Cleanup(func() {
		if t.Failed() {
			c.Tell()
		}
		if err := c.Remove(); err != nil {
			t.Error(err)
		}
	})
	if err := c.Create(run.Want{}); err != nil {
		t.Error(err)
	} else if err := c.Task.Start(run.Context(t)); err != nil {
		t.Error(err)
	}
	return c
}

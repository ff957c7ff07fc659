// Package nerdctl starts clones as its users do: in the network that it makes with a hook of the
// container, with files of its own for names and addresses, and with itself as the program that
// keeps their output.
package nerdctl

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/test/harness"
	"github.com/containerd-snap/snap/test/harness/run"
)

// busybox is the name of the image that all containers have.
const busybox = "localhost/snap/busybox:1"

var (
	shared *harness.Node
	// state is where nerdctl keeps what it knows.
	state string
)

func TestMain(m *testing.M) {
	harness.Main(m, harness.Suite{Name: "nerdctl", Network: true, SetUp: prepare})
}

func prepare(ctx context.Context, dir string) (func() error, error) {
	archive, err := harness.Image("busybox")
	if err != nil {
		return nil, err
	}
	state = dir
	if shared, err = harness.Start(ctx, harness.Options{Images: []string{archive}}); err != nil {
		return nil, err
	}
	return shared.End, nil
}

// command runs nerdctl, and returns what it printed.
func command(t *testing.T, args ...string) (string, error) {
	t.Helper()
	path, err := harness.Tool("nerdctl")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	cmd := shared.Script(ctx, path)
	cmd.Args = append(cmd.Args,
		"--address", shared.Address, "--namespace", shared.Namespace, "--cgroup-manager", "cgroupfs",
		"--data-root", filepath.Join(state, "data"), "--hosts-dir", filepath.Join(state, "hosts"),
		"--cni-netconfpath", filepath.Join(state, "networks"), "--cni-path", filepath.Join(os.Getenv(harness.EnvTools), "cni"))
	cmd.Args = append(cmd.Args, args...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("nerdctl %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), err
}

// nerdctl runs it, and nothing else may happen than that it succeeds.
func nerdctl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := command(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// container is one of nerdctl's.
type container struct {
	*testing.T
	name, id, ip string
}

// start runs a container of that name, which is removed with the test.
func start(t *testing.T, name string, args ...string) *container {
	t.Helper()
	args = append([]string{"run", "-d", "--pull", "never", "--runtime", "io.containerd.snap.v2", "--name", name, "--hostname", name}, args...)
	t.Cleanup(func() {
		if _, err := command(t, "rm", "-f", name); err != nil {
			t.Error(err)
		}
	})
	nerdctl(t, args...)
	c := &container{T: t, name: name}
	var is []struct {
		ID              string `json:"Id"`
		NetworkSettings struct{ IPAddress string }
	}
	if out := nerdctl(t, "inspect", name); json.Unmarshal([]byte(out), &is) != nil || len(is) != 1 {
		t.Fatalf("nerdctl inspect: %s", out)
	}
	c.id, c.ip = is[0].ID, is[0].NetworkSettings.IPAddress
	return c
}

// record is how it was started.
func (c *container) record() checkpoint.Start {
	c.Helper()
	st, err := run.OpenStore(c.T, shared).Start(shared.Namespace, c.id)
	if err != nil {
		c.Fatal(err)
	}
	return st
}

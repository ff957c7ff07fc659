package run

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/test/harness"
)

// Snapctl runs snapctl and decodes what it prints with --json.
func Snapctl(t *testing.T, n *harness.Node, v any, args ...string) {
	t.Helper()
	out, err := n.Snapctl(Context(t), append(args, "--json")...)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(out.Stdout), v); err != nil {
		t.Fatal(fmt.Errorf("decode what snapctl %q printed: %w: %s", args, err, out.Stdout))
	}
}

// CreateCheckpoint has snapctl take a checkpoint of the task, with these flags besides.
// It is removed with the test.
func (c *Container) CreateCheckpoint(flags ...string) checkpoint.Entry {
	c.T.Helper()
	var made struct{ Digest string }
	Snapctl(c.T, c.Node, &made, append([]string{"create", c.ID()}, flags...)...)
	return c.registered(made.Digest)
}

package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/shim/capture"
	"github.com/containerd-snap/snap/test/harness"
)

// ctrEvents runs `ctr events` until the test ends and returns its output.
func ctrEvents(t *testing.T, n *harness.Node) *output {
	t.Helper()
	ctr, err := harness.Tool("ctr")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	out := &output{}
	cmd := exec.CommandContext(ctx, ctr, "--address", n.Address, "--namespace", n.Namespace, "events")
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel() // kills it
		_ = cmd.Wait()
	})
	// It listens when it tells of something that happens again and again.
	eventually(t, func() error {
		if _, err := n.Ctr(testContext(t), "namespaces", "label", n.Namespace, fmt.Sprintf("listening=%d", serial())); err != nil {
			return err
		}
		if !strings.Contains(out.String(), "/namespaces/update") {
			return errors.New("ctr events does not listen")
		}
		return nil
	})
	return out
}

// said is what an event of ours holds, or one of containerd's of a task.
type said struct {
	ID          string            `json:"id"`
	Labels      map[string]string `json:"labels"`
	ContainerID string            `json:"container_id"`
	Checkpoint  string            `json:"checkpoint"`
}

// announced waits for an event on the topic that has the value in one of its labels, or
// as its checkpoint, and returns it.
func announced(t *testing.T, out *output, topic, id, value string) said {
	t.Helper()
	var e said
	eventually(t, func() error {
		for line := range strings.Lines(out.String()) {
			_, text, ok := strings.Cut(line, " "+topic+" ")
			if !ok {
				continue
			}
			e = said{}
			if err := json.Unmarshal([]byte(text), &e); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			if (e.ID == id || e.ContainerID == id) && (value == "" || e.Checkpoint == value || e.Labels["checkpoint"] == value) {
				return nil
			}
		}
		return fmt.Errorf("no %s of %s and %s: %s", topic, id, value, out)
	})
	return e
}

// TestAnnounce watches what is counted and announced, with `ctr events` as everybody has
// it, and `snapctl metrics`.
func TestAnnounce(t *testing.T) {
	t.Parallel()
	n := newNode(t, harness.Options{})
	configure(t, n, "[limits]\nper_image = 1\n")
	out := ctrEvents(t, n)
	check := func(topic, id, checkpoint string, want map[string]string) {
		t.Helper()
		got := announced(t, out, topic, id, checkpoint)
		for k, v := range want {
			if !strings.Contains(got.Labels[k], v) {
				t.Errorf("%s of %s: %s is %q, want %q", topic, id, k, got.Labels[k], v)
			}
		}
	}
	a := start(t, n, probeOf())
	check("/snap/start", a.ID(), "", map[string]string{"decision": "boot", "outcome": "boot", "reason": "no registered checkpoint", "reason_class": "none", "took_ms": "."})
	a.Probe()
	old := a.MustCapture(capture.Request{})
	check("/snap/capture", a.ID(), old.Digest, map[string]string{"kind": "template", "bytes": strconv.FormatInt(old.Checkpoint.Bytes(), 10), "pause_ms": "."})
	check("/tasks/checkpointed", a.ID(), old.Digest, nil)
	b := start(t, n, want{Image: probeImage, Args: []string{"/bin/probe", "-mptcp"}})
	b.Probe()
	if _, err := b.Capture(capture.Request{}); err == nil {
		t.Error("captured with multipath TCP")
	}
	check("/snap/capture", b.ID(), "", map[string]string{"error": "multipath"})
	e := a.MustCapture(capture.Request{}) // the older one goes
	check("/snap/prune", a.ID(), old.Digest, map[string]string{"cause": "per_image"})

	r := start(t, n, probeOf())
	r.MustRestored(e)
	check("/snap/start", r.ID(), e.Digest, map[string]string{"decision": "restore", "outcome": "restore", "reason_class": "fits"})
	onFile("mm-1.img", func(path string) error { return os.Truncate(path, 20) })(t, n, e)
	c := start(t, n, probeOf())
	if r := c.Record(); r.Fallback == "" || r.Outcome != checkpoint.Boot {
		t.Errorf("not a fallback: %+v", r)
	}
	check("/snap/start", c.ID(), e.Digest, map[string]string{"decision": "restore", "outcome": "boot", "fallback": "mm-1.img"})

	// The counts outlive what they were of.
	c.Kill(unix.SIGKILL)
	c.Wait()
	c.DeleteTask()
	if err := os.Remove(filepath.Join(openStore(t, n).Root(), "starts", n.Namespace, c.ID()+".json")); err != nil {
		t.Fatal(err)
	}
	metrics, err := n.Snapctl(testContext(t), "metrics")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`snap_starts_total{decision="boot",reason="none",outcome="boot"} 2`,
		`snap_starts_total{decision="restore",reason="fits",outcome="restore"} 1`,
		`snap_starts_total{decision="restore",reason="fits",outcome="fallback"} 1`,
		`snap_captures_total{kind="template",result="registered"} 2`,
		`snap_captures_total{kind="template",result="failed"} 1`,
		`snap_pruned_total{cause="per_image"} 1`,
		`snap_store_checkpoints{kind="template"} 1`,
		`snap_start_seconds_count{outcome="fallback"} 1`,
		`snap_capture_pause_seconds_count 2`,
	} {
		if !strings.Contains(metrics.Stdout, line+"\n") {
			t.Errorf("metrics lack %s", line)
		}
	}
}

package pressure

import (
	"context"
	"encoding/json"
	"flag"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/namespaces"

	"github.com/containerd-snap/snap/test/harness"
)

var (
	stressTime  = flag.Duration("stress", 12*time.Second, "how long containerd-stress runs, both runtimes together")
	stressSlice = flag.Duration("slice", 3*time.Second, "how long it runs one runtime before the other has its turn")
	stressJobs  = flag.Int("concurrent", 8, "how many containers live at once")
	stressSpeed = flag.Bool("speed", false, "fail if our runtime makes fewer cycles than the stock one")
)

// stressNamespace is where containerd-stress works; it knows no other.
const stressNamespace = "stress"

// cycles is what containerd-stress made of one runtime's slices.
type cycles struct {
	Total   int     `json:"cycles"`
	Seconds float64 `json:"seconds"`
	// PerSecond are those of the single slices.
	PerSecond []float64 `json:"cycles_per_second"`
}

// TestStress lets containerd-stress make containers with both runtimes in
// turns: none fails, and nothing of them is left. With -speed, ours makes at
// least as many in the same time.
func TestStress(t *testing.T) {
	n := newNode(t, harness.Options{Namespace: stressNamespace})
	image := serveImage(t, archive)
	results := map[string]*cycles{snap: {}, runc: {}}
	// Warm up: images are unpacked, programs read from the disk.
	for name := range results {
		stress(t, n, name, image, time.Second, &cycles{})
	}
	fds := daemonFDs(t, n)
	for i := 0; time.Duration(2*i)**stressSlice < *stressTime; i++ {
		// Who is first in a round is last in the next.
		for _, name := range [][]string{{snap, runc}, {runc, snap}}[i%2] {
			stress(t, n, name, image, *stressSlice, results[name])
		}
	}
	report(t, "stress.json", results)
	noneLeft(t, n)
	if now := daemonFDs(t, n); now > fds {
		t.Errorf("containerd has %d descriptors open, had %d", now, fds)
	}
	if ours, stock := results[snap], results[runc]; *stressSpeed && ours.Total < stock.Total {
		t.Errorf("ours made %d cycles in %.0f s, the stock runtime %d in %.0f s", ours.Total, ours.Seconds, stock.Total, stock.Seconds)
	}
}

// stress runs containerd-stress with one runtime, and adds what it did.
func stress(t *testing.T, n *harness.Node, runtime, image string, d time.Duration, sum *cycles) {
	t.Helper()
	program, err := harness.Tool("containerd-stress")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), d+2*deadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "--address", n.Address, "--runtime", runtimes[runtime], "--image", image,
		"--concurrent", strconv.Itoa(*stressJobs), "--duration", d.String(), "--json")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	var stdout strings.Builder
	cmd.Stdout = &stdout
	if err = startUnlimited(cmd); err == nil {
		err = cmd.Wait()
	}
	// Its result does not say what failed, and its exit status neither: its log does.
	if err != nil || strings.Contains(stderr.String(), "level=error") {
		t.Fatalf("containerd-stress with %s: %v: %s", runtime, err, tail(stderr.String()))
	}
	var result struct {
		Total   int     `json:"total"`
		Seconds float64 `json:"seconds"`
	}
	if err := json.Unmarshal([]byte(stdout.String()), &result); err != nil {
		t.Fatalf("result %q: %v", stdout.String(), err)
	}
	if result.Total < *stressJobs {
		t.Errorf("%s: %d cycles in %.1f s", runtime, result.Total, result.Seconds)
	}
	sum.Total += result.Total
	sum.Seconds += result.Seconds
	sum.PerSecond = append(sum.PerSecond, float64(result.Total)/result.Seconds)
}

// tail is the end of a long text.
func tail(s string) string { return s[max(0, len(s)-2000):] }

// daemonFDs counts containerd's descriptors when it has come to rest: it closes
// those of a shim a moment after the shim has ended.
func daemonFDs(t *testing.T, n *harness.Node) int {
	t.Helper()
	if _, err := n.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	fewest := 0
	for range 10 {
		fds, err := harness.CountFDs(n.PID())
		if err != nil {
			t.Fatal(err)
		}
		if fewest == 0 || fds < fewest {
			fewest = fds
		}
		time.Sleep(100 * time.Millisecond)
	}
	return fewest
}

// noneLeft checks that nothing is left of any container, nor a record of one.
func noneLeft(t *testing.T, n *harness.Node) {
	t.Helper()
	ctx := namespaces.WithNamespace(t.Context(), n.Namespace)
	left, err := n.Settle(ctx)
	if err != nil || !left.Empty() {
		t.Errorf("something is left (%v):\n%s", err, left)
	}
	all, err := n.Client().Containers(ctx)
	if err != nil || len(all) != 0 {
		t.Errorf("%d containers, %v", len(all), err)
	}
}

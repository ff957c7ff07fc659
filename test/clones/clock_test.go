package clones

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/containerd-snap/snap/shim/capture"
	"github.com/containerd-snap/snap/test/harness/run"
)

// uptime reads the last whole line of what /proc/uptime said again and again, in seconds of
// CLOCK_BOOTTIME.
func uptime(t *testing.T, out string) float64 {
	t.Helper()
	lines := strings.Split(out, "\n")
	if len(lines) < 2 {
		t.Fatalf("no whole line in %q", out)
	}
	seconds, _, _ := strings.Cut(strings.TrimSpace(lines[len(lines)-2]), " ")
	v, err := strconv.ParseFloat(seconds, 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// timeNamespace makes the container one of its own, with these offsets in seconds.
func timeNamespace(monotonic, boot int64) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *specs.Spec) error {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
		s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {Secs: monotonic}, "boottime": {Secs: boot}}
		return nil
	}
}

// TestClocks: the clocks that nobody sets go on in a clone from where they were at the
// capture, with and without a time namespace in the spec, in the program and in what is
// executed beside it; the time of the day is the node's.
func TestClocks(t *testing.T) {
	t.Parallel()
	const script = "while :; do cat /proc/uptime; sleep 0.1; done"
	const boot = 500000
	for name, w := range map[string]run.Want{
		"time namespace": run.Shell(script, timeNamespace(100000, boot)),
		"none":           run.Shell(script),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			original := run.Start(t, shared, w)
			original.Out.WaitFor(t, "\n")
			if up := uptime(t, original.Out.String()); (up > boot) != (name != "none") {
				t.Errorf("the captured program is up for %f s", up)
			}
			e := original.MustCapture(capture.Request{})
			atCapture, captured := uptime(t, original.Out.String()), time.Now()
			// So long that going on and jumping can be told apart.
			const away = 3 * time.Second
			run.Eventually(t, func() error {
				if time.Since(captured) < away {
					return fmt.Errorf("%s are not over", away)
				}
				return nil
			})
			begin := time.Now()
			clone := run.Start(t, shared, w)
			clone.MustRestored(e)
			clone.Out.WaitFor(t, "\n")
			jumped := uptime(t, clone.Out.String()) - atCapture
			if most := time.Since(begin).Seconds() + 1; jumped < -1 || jumped > most {
				t.Errorf("the clone's clock went on by %f s, want at most %f", jumped, most)
			}
			inside := uptime(t, clone.MustExec("cat", "/proc/uptime"))
			if off := inside - uptime(t, clone.Out.String()); off < -1 || off > time.Since(begin).Seconds()+1 {
				t.Errorf("what is executed in the clone has a clock that is off by %f s", off)
			}
			if own, first := clone.MustExec("readlink", "/proc/self/ns/time"), clone.MustExec("readlink", "/proc/1/ns/time"); own != first {
				t.Errorf("what is executed in the clone is in %s, the program in %s", own, first)
			}
			now, err := strconv.ParseInt(strings.TrimSpace(clone.MustExec("date", "+%s")), 10, 64)
			if off := time.Now().Unix() - now; err != nil || off < 0 || off > 5 {
				t.Errorf("the clone's time of the day is off by %d s: %v", off, err)
			}
			again := clone.MustCapture(capture.Request{})
			third := run.Start(t, shared, w.Annotate("checkpoint", again.Digest))
			third.MustRestored(again)
			third.Out.WaitFor(t, "\n")
			if off := uptime(t, third.Out.String()) - uptime(t, clone.Out.String()); off < -time.Since(begin).Seconds()-1 || off > 1 {
				t.Errorf("the clock of the clone's clone is off by %f s", off)
			}
		})
	}
}

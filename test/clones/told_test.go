package clones

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/oci"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/shim/capture"
	"github.com/containerd-snap/snap/test/harness/run"
)

// identities is a program that looks all the time who it is, and says so when that has changed. It
// reads what has changed at once: of what the shell's own read takes byte by byte a clone gets the rest.
const identities = `
tell() { printf '%s|%s|%s|%s|%s.\n' "$g" "$(cat hostname)" "$(cat checkpoint)" "$(cat restored-at)" "$(tr '\0' '\n' <env | grep ^HOSTNAME=)"; }
cd /run/snap; while :; do g=$(cat generation); [ "$g" = "$last" ] || { last=$g; tell; }; done`

// TestToldBeforeItRuns: who a program is has been written, all of it, before its first
// instruction: after a boot, a restore, a restore of a clone, and a fallback. What a clone
// says is never what the captured program was.
func TestToldBeforeItRuns(t *testing.T) {
	t.Parallel()
	of := func(hostname string) run.Want {
		return run.Shell(identities, oci.WithHostname(hostname), oci.WithEnv([]string{"HOSTNAME=" + hostname, "SNAP_TEST=" + t.Name()})).
			Annotate("identity", "/run/snap")
	}
	seen := map[string]bool{}
	// says checks the first and only thing that a container says.
	says := func(c *run.Container, hostname, digest string) {
		t.Helper()
		c.Out.WaitFor(t, ".\n")
		is := strings.Split(strings.TrimSuffix(c.Out.String(), ".\n"), "|")
		if len(is) != 5 || len(is[0]) < 20 || seen[is[0]] || is[1] != hostname || is[2] != digest ||
			(is[3] == "") != (digest == "") || is[4] != "HOSTNAME="+hostname {
			t.Errorf("%s says %q", hostname, c.Out)
		}
		seen[is[0]] = true
	}
	original := run.Start(t, shared, of("first"))
	says(original, "first", "")
	e := original.MustCapture(capture.Request{})
	clone := run.Start(t, shared, of("second"))
	clone.MustRestored(e)
	says(clone, "second", e.Digest)
	again := clone.MustCapture(capture.Request{})
	third := run.Start(t, shared, of("third").Annotate("checkpoint", again.Digest))
	says(third, "third", again.Digest)
	fallback := run.Start(t, shared, of("fourth").Annotate("after-restore", "exec:/bin/false"))
	if r := fallback.Record(); r.Outcome != checkpoint.Boot || r.Fallback == "" {
		t.Errorf("outcome %s, fallback %q", r.Outcome, r.Fallback)
	}
	// The clone that had to go may have said something: the boot comes last.
	run.Eventually(t, func() error {
		lines := strings.Split(strings.TrimSpace(fallback.Out.String()), "\n")
		is := strings.Split(lines[len(lines)-1], "|")
		if len(is) != 5 || is[1] != "fourth" || is[2] != "" || is[3] != "" || seen[is[0]] {
			return fmt.Errorf("after the fallback it says %q", fallback.Out)
		}
		return nil
	})
	if strings.Count(original.Out.String(), "\n") != 1 {
		t.Errorf("the captured program said %q", original.Out)
	}
}

// TestAfterRestoreTakesTooLong: a command that does not end in time makes the start a
// fallback, and is ended.
func TestAfterRestoreTakesTooLong(t *testing.T) {
	t.Parallel()
	w := run.Probe()
	original := run.Start(t, shared, w)
	before := original.Probe()
	original.MustCapture(capture.Request{})
	c := run.Create(t, shared, w.Annotate("after-restore", "exec:sleep 4711"))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second+run.Deadline)
	defer cancel()
	if err := c.Task.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if r := c.Record(); r.Outcome != checkpoint.Boot || !strings.Contains(r.Fallback, "after the restore, exec:sleep 4711: it did not end in time") {
		t.Errorf("outcome %s, fallback %q", r.Outcome, r.Fallback)
	}
	if s := c.Probe(); s.Token == before.Token {
		t.Error("it was restored")
	}
	run.Eventually(t, func() error {
		if out, _ := c.Exec("ps", "-o", "args"); strings.Contains(out, "4711") {
			return errors.New("the command still runs")
		}
		return nil
	})
	c.InOwnCgroup()
	c.Kill(unix.SIGTERM)
	if status := c.Wait(); status != 7 {
		t.Errorf("exit status %d", status)
	}
}

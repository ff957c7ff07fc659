package integration

import (
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/shim/capture"
)

// TestAfterRestore: the actions have been done, in their order, when Start
// answers; they are not done after a boot.
func TestAfterRestore(t *testing.T) {
	t.Parallel()
	w := probeOf(oci.WithHostname("refreshed")).Annotate("after-restore",
		"signal:USR1 ; exec:touch /after;signal:USR1@probe")
	w.Opts = append(w.Opts, oci.WithEnv([]string{"SNAP_AFTER=1"}))
	a := start(t, shared, w)
	before := a.Probe()
	e := a.MustCapture(capture.Request{})
	if out, code := a.Exec("ls", "/after"); code == 0 {
		t.Errorf("the actions were done after a boot: %s", out)
	}
	c := start(t, shared, w)
	c.MustRestored(e)
	c.GoesOn(before)
	c.MustExec("ls", "/after")
	c.Out.WaitFor(t, "signal user defined signal 1\nsignal user defined signal 1")
	if strings.Contains(a.Out.String(), "signal") {
		t.Errorf("the captured program got the signal: %q", a.Out)
	}
	phases := c.Record().Phases
	found := false
	for _, p := range phases {
		found = found || p.Name == "after-restore"
	}
	if !found {
		t.Errorf("phases %+v", phases)
	}
	// What was executed is gone: the clone can be captured.
	c.MustCapture(capture.Request{})
}

// TestAfterRestoreFails: an action that fails makes the start a fallback, or
// fails it where a restore was asked for.
func TestAfterRestoreFails(t *testing.T) {
	t.Parallel()
	// The same in every subtest.
	plain := probeOf(oci.WithEnv([]string{"SNAP_TEST=" + t.Name()}))
	a := start(t, shared, plain)
	before := a.Probe()
	e := a.MustCapture(capture.Request{})
	for value, says := range map[string]string{
		"exec:/bin/ls /nowhere":       `it ended with status 1; it said "ls: /nowhere: No such file`,
		"exec:/bin/nothing":           "/bin/nothing",
		"signal:HUP@nobody":           `no process of the container is named "nobody"`,
		"signal:USR1;exec:/bin/false": "exec:/bin/false: it ended with status 1",
	} {
		t.Run(value, func(t *testing.T) {
			if err := openStore(t, shared).Clear(e.Digest); err != nil {
				t.Fatal(err)
			}
			w := plain.Annotate("after-restore", value)
			c := start(t, shared, w)
			if r := c.Record(); r.Outcome != checkpoint.Boot || !strings.Contains(r.Fallback, says) {
				t.Errorf("outcome %s, fallback %q, want %q", r.Outcome, r.Fallback, says)
			}
			if s := c.Probe(); s.Token == before.Token {
				t.Error("it was restored")
			}
			c.Out.WaitFor(t, "booted")
			execs(c)
			c.InOwnCgroup()
			c.Kill(unix.SIGTERM)
			if got := c.Wait(); got != 7 {
				t.Errorf("exit status %d", got)
			}
			d := create(t, shared, w.Annotate("restore", "Required"))
			err := d.Task.Start(testContext(t))
			if err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("demanded: %v, want %q", err, says)
			}
			d.Wait()
			d.DeleteTask()
		})
	}
}

// TestIdentity: a program learns who it is, before its first instruction and at
// every start anew.
func TestIdentity(t *testing.T) {
	t.Parallel()
	of := func(hostname string) want {
		w := probeOf(oci.WithHostname(hostname), oci.WithEnv([]string{"HOSTNAME=" + hostname}),
			oci.WithMounts([]specs.Mount{{Destination: "/data", Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=1777"}}}))
		w.Args = append(w.Args, "-file", "/data/counter")
		return w.Annotate("identity", "/run/snap")
	}
	read := func(c *container) map[string]string {
		files := map[string]string{}
		for _, name := range []string{"generation", "hostname", "env", "checkpoint", "restored-at"} {
			files[name] = strings.TrimSuffix(c.MustExec("cat", "/run/snap/"+name), "\n")
		}
		return files
	}
	a := start(t, shared, of("first"))
	before := a.Probe()
	first := read(a)
	if first["hostname"] != "first" || first["checkpoint"] != "" || first["restored-at"] != "" || len(first["generation"]) < 20 {
		t.Errorf("after a boot: %q", first)
	}
	if out, code := a.Exec("sh", "-c", "echo x > /run/snap/generation"); code == 0 {
		t.Errorf("it can be written: %s", out)
	}
	e := a.MustCapture(capture.Request{})
	b := start(t, shared, of("second"))
	b.MustRestored(e)
	b.GoesOn(before)
	second := read(b)
	if second["hostname"] != "second" || second["checkpoint"] != e.Digest || second["restored-at"] == "" || second["generation"] == first["generation"] {
		t.Errorf("after a restore: %q, before: %q", second, first)
	}
	env := strings.Split(second["env"], "\x00")
	if !strings.Contains(strings.Join(env, " "), "HOSTNAME=second") || strings.Contains(second["env"], "HOSTNAME=first") {
		t.Errorf("environment %q", env)
	}
	if again := read(a); again["generation"] != first["generation"] {
		t.Error("the captured program's own identity changed")
	}
	// A clone of a clone.
	e2 := b.MustCapture(capture.Request{})
	c := start(t, shared, of("third").Annotate("checkpoint", e2.Digest))
	if third := read(c); third["hostname"] != "third" || third["checkpoint"] != e2.Digest || third["generation"] == second["generation"] {
		t.Errorf("after the second restore: %q", third)
	}
}

// TestIdentityRefused: bad values fail at Create and name what is wrong.
func TestIdentityRefused(t *testing.T) {
	t.Parallel()
	for value, says := range map[string]string{
		"run/snap": "absolute path", "/": "absolute path", "/run/../snap": "absolute path", "/proc/snap": "absolute path",
		"/dev/shm": "the spec mounts something else there",
	} {
		c := newContainer(t, shared, probeOf().Annotate("identity", value))
		err := c.Create(probeOf())
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", value, err, says)
		}
	}
}

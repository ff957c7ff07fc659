package network

import (
	"errors"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/shim/capture"
	"github.com/containerd-snap/snap/test/harness"
	"github.com/containerd-snap/snap/test/harness/run"
)

// pod is a network namespace that outlives the containers in it, at an address of a LAN.
type pod struct {
	t       *testing.T
	lan     *run.LAN
	pid     int
	address string
}

func newPod(t *testing.T, l *run.LAN, address string) *pod {
	t.Helper()
	p := &pod{t: t, lan: l, pid: run.NewLAN(t, "127.0.0.2/32").PID, address: address}
	if err := harness.SetLoopbackUp(p.pid); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Attach(p.pid, address+"/24", nil); err != nil {
		t.Fatal(err)
	}
	return p
}

// wants a probe in the pod that captures and restores connections.
func (p *pod) wants(args ...string) run.Want {
	w := run.Probe(oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: fmt.Sprintf("/proc/%d/ns/net", p.pid)}))
	w.Args = append(append(w.Args, "-listen", "0.0.0.0:7000"), args...)
	return w.Annotate("tcp", "established")
}

// connect connects to the probe from the LAN, and has it say something.
func (p *pod) connect() net.Conn {
	p.t.Helper()
	var c net.Conn
	run.Eventually(p.t, func() (err error) {
		c, err = harness.DialIn(run.Context(p.t), p.lan.PID, p.address+":7000")
		return err
	})
	p.t.Cleanup(func() { c.Close() })
	p.echo(c)
	return c
}

// echo checks that a connection lives.
func (p *pod) echo(c net.Conn) {
	p.t.Helper()
	b := make([]byte, 6)
	if err := c.SetDeadline(time.Now().Add(run.Deadline)); err != nil {
		p.t.Fatal(err)
	}
	if _, err := c.Write([]byte("hello\n")); err != nil {
		p.t.Error(err)
	}
	if _, err := c.Read(b); err != nil || string(b) != "hello\n" {
		p.t.Errorf("the connection answers %q, %v", b, err)
	}
}

// silent waits until the pod's network is silenced, by the one rule that is ours.
func (p *pod) silent() {
	p.t.Helper()
	run.Eventually(p.t, func() error {
		return harness.InNetNS(p.pid, func() error {
			found, err := exec.Command("nft", "list", "tables").CombinedOutput()
			if err == nil && !strings.Contains(string(found), "snap-") {
				return fmt.Errorf("the network is not silenced: %q", found)
			}
			return err
		})
	})
}

// clean checks that no rule is left anywhere.
func (p *pod) clean(after string) {
	p.t.Helper()
	noRules(p.t, after+": the pod", p.pid)
	noRules(p.t, after+": its peers", p.lan.PID)
	noRules(p.t, after+": the host", shared.PID())
}

// TestRulesAfterSuccess: a network is silenced while its connections are saved and
// restored, and speaks again afterwards.
func TestRulesAfterSuccess(t *testing.T) {
	t.Parallel()
	p := newPod(t, lan(t), "10.96.0.50")
	a := run.Start(t, shared, p.wants())
	c := p.connect()
	a.MustCapture(capture.Request{})
	p.clean("a capture")
	p.echo(c)
	e := a.MustCapture(capture.Request{Stop: true})
	// Peers shall not hear of the end: until the task is deleted the network stays silent.
	p.silent()
	a.Wait()
	a.DeleteTask()
	p.clean("the deletion")
	b := run.Create(t, shared, p.wants())
	p.silent()
	if err := b.Task.Start(run.Context(t)); err != nil {
		t.Fatal(err)
	}
	b.MustRestored(e)
	p.clean("a restore")
	p.echo(c)
}

// TestRulesAfterFailure: captures and restores that fail leave a network that speaks.
func TestRulesAfterFailure(t *testing.T) {
	t.Parallel()
	l := lan(t)
	p := newPod(t, l, "10.96.0.51")
	a := run.Start(t, shared, p.wants("-hold", "vsock"))
	c := p.connect()
	if _, err := a.Capture(capture.Request{}); err == nil {
		t.Error("a program with a vsock socket was captured")
	}
	p.clean("a failed capture")
	p.echo(c)

	q := newPod(t, l, "10.96.0.52")
	b := run.Start(t, shared, q.wants())
	q.connect()
	b.MustCapture(capture.Request{})
	other := newPod(t, l, "10.96.0.53")
	moved := run.Start(t, shared, other.wants())
	if r := moved.Record(); r.Outcome != checkpoint.Boot || !strings.Contains(r.Fallback, "needs the address 10.96.0.52") {
		t.Errorf("outcome %s, fallback %q", r.Outcome, r.Fallback)
	}
	other.clean("a failed restore")
	other.connect()
	// One that is given up before its start.
	held := run.Create(t, shared, other.wants())
	other.silent()
	held.Kill(unix.SIGKILL)
	held.Wait()
	other.clean("a restore that was given up")
}

// TestRulesAfterKills: whoever is killed in the midst of it, CRIU or the shim, takes the
// silence along.
func TestRulesAfterKills(t *testing.T) {
	t.Parallel()
	l := lan(t)
	t.Run("CRIU", func(t *testing.T) {
		p := newPod(t, l, "10.96.0.54")
		p.interrupt(func(c *run.Container) { _ = killCRIU(shimOf(t, c)) }) // it may have ended
		p.clean("CRIU was killed in a capture")
	})
	t.Run("shim in a capture", func(t *testing.T) {
		p := newPod(t, l, "10.96.0.55")
		p.interrupt(p.killShim)
		p.clean("the shim was killed in a capture")
	})
	t.Run("shim in a restore", func(t *testing.T) {
		p := newPod(t, l, "10.96.0.56")
		a := run.Start(t, shared, p.wants())
		p.connect()
		a.MustCapture(capture.Request{Stop: true})
		a.Wait()
		a.DeleteTask()
		b := run.Create(t, shared, p.wants())
		p.silent()
		p.killShim(b)
		p.clean("the shim was killed in a restore")
	})
}

// interrupt has kill come in between while a container with a connection is captured. A
// capture that was faster is tried again.
func (p *pod) interrupt(kill func(c *run.Container)) {
	p.t.Helper()
	for range 5 {
		c := run.Start(p.t, shared, p.wants("-memory", "200"))
		p.connect()
		done := make(chan error, 1)
		go func() {
			e, err := c.Capture(capture.Request{})
			if err == nil {
				err = run.OpenStore(p.t, shared).Remove(e.Digest)
				done <- err
				return
			}
			done <- errInterrupted
		}()
		p.silent()
		kill(c)
		err := <-done
		if errors.Is(err, errInterrupted) {
			return
		}
		if err := errors.Join(err, c.Remove()); err != nil {
			p.t.Fatal(err)
		}
	}
	p.t.Error("each capture was faster")
}

var errInterrupted = errors.New("the capture failed")

// killShim kills the container's shim, and waits until containerd knows.
func (p *pod) killShim(c *run.Container) {
	p.t.Helper()
	if err := unix.Kill(shimOf(p.t, c), unix.SIGKILL); err != nil {
		p.t.Fatal(err)
	}
	run.Eventually(p.t, func() error {
		if _, err := c.Container.Task(p.t.Context(), nil); !errdefs.IsNotFound(err) {
			return fmt.Errorf("task %s is still there", c.ID())
		}
		return nil
	})
	// What it was just writing to the store is swept before the next capture.
	if _, err := run.OpenStore(p.t, shared).Sweep(); err != nil {
		p.t.Error(err)
	}
}

// shimOf is the process that a container's init is a child of.
func shimOf(t *testing.T, c *run.Container) int {
	t.Helper()
	p, err := harness.ReadProcess(c.Pid())
	if err != nil {
		t.Fatal(err)
	}
	return p.PPID
}

// killCRIU kills the CRIU that a shim runs.
func killCRIU(shim int) error {
	all, err := harness.Processes()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(p harness.Process) bool {
		// It changes its command line.
		return p.PPID == shim && p.State != "Z" && slices.ContainsFunc(p.Args, func(arg string) bool { return arg == "swrk" || strings.HasPrefix(arg, "criu:") })
	})
	if i < 0 {
		return fmt.Errorf("shim %d runs no CRIU", shim)
	}
	return unix.Kill(all[i].PID, unix.SIGKILL)
}

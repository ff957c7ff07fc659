package integration

import (
	"bufio"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/shim/capture"
	"github.com/containerd-snap/snap/test/harness"
	"github.com/containerd-snap/snap/test/harness/run"
)

const (
	lanServer = "10.97.0.2"
	lanPeer   = "10.97.0.1"
	lanMask   = "/24"
)

// serverMAC goes with the server's address, as in a migration.
var serverMAC = net.HardwareAddr{0x02, 0, 0, 0x97, 0, 2}

// server wants a probe that can be reached from a lan.
func server(tcp string) want {
	w := probeOf()
	w.Args = append(w.Args, "-listen", "0.0.0.0:7000")
	return w.Annotate("tcp", tcp)
}

// startIn starts a container in a lan. What it returns takes it out again.
func startIn(t *testing.T, l *run.LAN, n *harness.Node, w want, address string) (*container, func()) {
	t.Helper()
	c := create(t, n, w)
	detach, err := l.Attach(c.Pid(), address+lanMask, serverMAC)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Task.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	return c, detach
}

// peer is somebody who talks to a probe.
type peer struct {
	t       *testing.T
	conn    net.Conn
	answers *bufio.Reader
}

func connectFrom(t *testing.T, l *run.LAN, address string) *peer {
	t.Helper()
	p := &peer{t: t}
	eventually(t, func() (err error) {
		p.conn, err = harness.DialIn(testContext(t), l.PID, address)
		return err
	})
	t.Cleanup(func() { p.conn.Close() })
	if err := p.conn.SetDeadline(time.Now().Add(deadline)); err != nil {
		t.Fatal(err)
	}
	p.answers = bufio.NewReader(p.conn)
	p.echo("hello")
	return p
}

func (p *peer) say(text string) {
	p.t.Helper()
	if _, err := fmt.Fprintln(p.conn, text); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) hear(want string) {
	p.t.Helper()
	if got, err := p.answers.ReadString('\n'); err != nil || got != want+"\n" {
		p.t.Fatalf("answer %q, %v, want %q", got, err, want)
	}
}

func (p *peer) echo(text string) {
	p.t.Helper()
	p.say(text)
	p.hear(text)
}

// noRules checks that no firewall rule is in a network namespace.
func noRules(t *testing.T, pid int) {
	t.Helper()
	err := harness.InNetNS(pid, func() error {
		for _, list := range [][]string{{"nft", "list", "ruleset"}, {"iptables-legacy-save"}} {
			out, err := exec.CommandContext(t.Context(), list[0], list[1:]...).CombinedOutput()
			if err != nil && list[0] == "nft" || strings.Contains(string(out), "DROP") || strings.Contains(string(out), "drop") {
				return fmt.Errorf("%q: %w: %s", list, err, out)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestMigration stops a server at its capture, carries it to another
// containerd, and starts it there with the address that it had: its peer's connection
// goes on, with what he said meanwhile.
func TestMigration(t *testing.T) {
	t.Parallel()
	l := run.NewLAN(t, lanPeer+lanMask)
	w := server("established")
	first := newNode(t, harness.Options{})
	a, detach := startIn(t, l, first, w, lanServer)
	before := a.Probe()
	p := connectFrom(t, l, lanServer+":7000")
	e := a.MustCapture(capture.Request{Stop: true})
	want := fmt.Sprintf("%s:7000 -> %s", lanServer, p.conn.LocalAddr())
	if cs := e.Checkpoint.Connections; len(cs) != 1 || cs[0].String() != want {
		t.Errorf("connections of the checkpoint %v, want %s", cs, want)
	}
	if got := a.Wait(); got != 137 {
		t.Errorf("exit status %d", got)
	}
	p.say("is anybody there?")
	a.DeleteTask()
	detach()

	second := newNode(t, harness.Options{})
	file := filepath.Join(first.Dir, "server.tar")
	if _, err := first.Snapctl(testContext(t), "export", e.Digest, file); err != nil {
		t.Fatal(err)
	}
	if _, err := second.Snapctl(testContext(t), "import", file); err != nil {
		t.Fatal(err)
	}
	b, _ := startIn(t, l, second, w, lanServer)
	b.MustRestored(e)
	p.hear("is anybody there?")
	p.echo("so you have moved")
	b.GoesOn(before)
	noRules(t, b.Pid())
}

// TestEstablishedGoesOn: a capture that leaves the program running leaves its
// connections, too, and no rule.
func TestEstablishedGoesOn(t *testing.T) {
	t.Parallel()
	l := run.NewLAN(t, lanPeer+lanMask)
	w := server("established")
	a, detach := startIn(t, l, shared, w, lanServer)
	before := a.Probe()
	p := connectFrom(t, l, lanServer+":7000")
	e := a.MustCapture(capture.Request{})
	p.echo("still here")
	noRules(t, a.Pid())
	a.GoesOn(before)

	// Elsewhere the connection cannot be: it boots, and the checkpoint is not to blame.
	c, away := startIn(t, l, shared, w, "10.97.0.3")
	r := c.Record()
	if r.Outcome != checkpoint.Boot || !strings.Contains(r.Fallback, "needs the address "+lanServer) {
		t.Errorf("outcome %s, fallback %q", r.Outcome, r.Fallback)
	}
	noRules(t, c.Pid())
	if st, err := openStore(t, shared).Resolve(e.Digest); err != nil || st.State.Failures != 0 {
		t.Errorf("state %+v, %v", st.State, err)
	}
	away()
	demanded := create(t, shared, w.Annotate("restore", "Required"))
	if err := demanded.Task.Start(testContext(t)); err == nil || !strings.Contains(err.Error(), "needs the address "+lanServer) {
		t.Errorf("demanded: %v", err)
	}
	demanded.Wait()

	// A container that does not ask for connections gets the program without them.
	closed := server("close")
	d, dropped := startIn(t, l, shared, closed, "10.97.0.4")
	d.MustRestored(e)
	d.GoesOn(before)
	connectFrom(t, l, "10.97.0.4:7000").echo("and a new one")
	dropped()
	p.echo("not disturbed")
	detach()
}

// TestConnectionsRefused: with tcp=refuse open connections are in the way of a capture, by name.
func TestConnectionsRefused(t *testing.T) {
	t.Parallel()
	l := run.NewLAN(t, lanPeer+lanMask)
	a, _ := startIn(t, l, shared, server("refuse"), lanServer)
	before := a.Probe()
	p := connectFrom(t, l, lanServer+":7000")
	_, err := a.Capture(capture.Request{})
	want := fmt.Sprintf("%s:7000 -> %s", lanServer, p.conn.LocalAddr())
	if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "tcp=close") {
		t.Errorf("error %v, want one that names %s", err, want)
	}
	p.echo("still here")
	p.conn.Close()
	var e checkpoint.Entry
	eventually(t, func() (err error) { e, err = a.Capture(capture.Request{}); return err })
	if err := openStore(t, shared).Remove(e.Digest); err != nil {
		t.Error(err)
	}
	a.GoesOn(before)
}

package nerdctl

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/test/harness/run"
)

// counter counts for as long as it lives, and tells the number, a word that is another with each
// boot, and its host name, to its output and to whoever asks on port 80.
const counter = `mkdir /www && httpd -p 80 -h /www && boot=$(cat /proc/sys/kernel/random/uuid) && n=0
while :; do n=$((n+1)); echo "$n $boot $(hostname)" >/www/new; mv /www/new /www/said; cat /www/said; sleep 0.05; done`

// said is what the counter says.
type said struct {
	n              int
	boot, hostname string
}

// ask asks the counter at an address, as somebody on the node does.
func ask(t *testing.T, address string) (s said) {
	t.Helper()
	client := http.Client{Timeout: time.Second}
	run.Eventually(t, func() error {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/said", nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("it answers %s: %q", resp.Status, body)
		}
		s, err = read(string(body))
		return err
	})
	return s
}

func read(line string) (s said, err error) {
	f := strings.Fields(line)
	if len(f) != 3 {
		return s, fmt.Errorf("it says %q", line)
	}
	s.n, err = strconv.Atoi(f[0])
	s.boot, s.hostname = f[1], f[2]
	return s, err
}

// capture takes a checkpoint of a container, which goes on. snapctl knows it by what nerdctl's
// users call it.
func (c *container) capture(name string) {
	c.Helper()
	ctx, cancel := context.WithTimeout(c.Context(), time.Minute)
	defer cancel()
	if _, err := shared.Snapctl(ctx, "create", c.name, "--name", name); err != nil {
		c.Fatal(err)
	}
	for _, id := range []string{c.id, c.id[:12], c.name} {
		out, err := shared.Snapctl(ctx, "explain", id)
		if err != nil || !strings.Contains(out.Stdout, fmt.Sprintf("%s (%s)", c.id, c.name)) {
			c.Errorf("snapctl explain %s: %s, %v", id, out.Stdout, err)
		}
	}
	c.Cleanup(func() {
		if _, err := shared.Snapctl(context.WithoutCancel(ctx), "rm", name); err != nil {
			c.Error(err)
		}
	})
}

// is checks that a container is who it should be, and that it goes on from before, or does not.
func (c *container) is(before said, restored bool) said {
	c.Helper()
	now := ask(c.T, c.ip+":80")
	if now.hostname != c.name || (now.boot == before.boot) != restored || restored && now.n < before.n {
		c.Errorf("%s says %+v; restored: %t, from %+v", c.name, now, restored, before)
	}
	hosts := nerdctl(c.T, "exec", c.name, "cat", "/etc/hosts", "/etc/hostname")
	if !strings.Contains(hosts, c.ip) || !strings.Contains(hosts, c.name) {
		c.Errorf("%s at %s reads %q", c.name, c.ip, hosts)
	}
	return now
}

// TestClones: two clones of a container, each in the network with an address, a port, a host name,
// files and an output of its own, while the first one goes on.
func TestClones(t *testing.T) {
	first := start(t, "first", "-p", "18080:80", busybox, "sh", "-c", counter)
	if d := first.record().Decision; d.Action != checkpoint.Boot {
		t.Fatalf("%+v", d)
	}
	before := first.is(said{}, false)
	first.capture("counting")
	var clones []*container
	addresses := []string{first.ip}
	for i, name := range []string{"second", "third"} {
		c := start(t, name, "-p", fmt.Sprintf("%d:80", 18081+i), busybox, "sh", "-c", counter)
		if st := c.record(); st.Outcome != checkpoint.Restore {
			t.Fatalf("%s: %+v", name, st)
		}
		if slices.Contains(addresses, c.ip) || c.ip == "" {
			t.Errorf("%s has the address %q, others have %q", name, c.ip, addresses)
		}
		addresses, clones = append(addresses, c.ip), append(clones, c)
	}
	for i, c := range clones {
		now := c.is(before, true)
		if s := ask(t, fmt.Sprintf("127.0.0.1:%d", 18081+i)); s.hostname != c.name || s.n < now.n {
			t.Errorf("at its port %s says %+v, and %+v before", c.name, s, now)
		}
		logs := strings.Split(nerdctl(t, "logs", c.name), "\n")
		if s, err := read(logs[0]); err != nil || s.boot != before.boot || s.n < 2 {
			t.Errorf("%s begins with %q, %v", c.name, logs[0], err)
		}
		if s, err := read(logs[len(logs)-1]); err != nil || s.hostname != c.name {
			t.Errorf("%s ends with %q, %v", c.name, logs[len(logs)-1], err)
		}
	}
	first.is(before, true)

	second := clones[0]
	nerdctl(t, "pause", second.name)
	if s := nerdctl(t, "inspect", "--format", "{{.State.Status}}", second.name); s != "paused" {
		t.Errorf("it is %s", s)
	}
	nerdctl(t, "unpause", second.name)
	second.is(before, true)
	// It goes on where its files are, which no checkpoint must overwrite.
	nerdctl(t, "stop", "-t", "0", second.name)
	nerdctl(t, "start", second.name)
	if st := second.record(); st.Outcome != checkpoint.Boot || !strings.Contains(st.Decision.Reason, "writable layer") {
		t.Errorf("started again: %+v", st)
	}
}

// TestFallback: the restore fails when the network is there already. The hooks that made it end
// it, and make it anew for the boot.
func TestFallback(t *testing.T) {
	first := start(t, "original", busybox, "sh", "-c", counter)
	before := first.is(said{}, false)
	first.capture("frail")
	c := start(t, "booted", "-p", "18090:80", "--annotation", "io.containerd.snap.v2/after-restore=exec:/bin/false", busybox, "sh", "-c", counter)
	if st := c.record(); st.Decision.Action != checkpoint.Restore || st.Outcome != checkpoint.Boot || !strings.Contains(st.Fallback, "/bin/false") {
		t.Errorf("%+v", st)
	}
	c.is(before, false)
	if s := ask(t, "127.0.0.1:18090"); s.hostname != c.name {
		t.Errorf("at its port it says %+v", s)
	}
	out, err := command(t, "run", "--rm", "--runtime", "io.containerd.snap.v2", "--annotation", "io.containerd.snap.v2/restore=Required", busybox, "true")
	if err == nil || !strings.Contains(out, "restore was asked for: no registered checkpoint") {
		t.Errorf("a restore that cannot be: %s, %v", out, err)
	}
}

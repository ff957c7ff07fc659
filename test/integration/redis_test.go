package integration

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/oci"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/shim/capture"
	"github.com/containerd-snap/snap/test/harness"
	"github.com/containerd-snap/snap/test/harness/run"
)

const (
	redisImage = "localhost/snap/redis:1"
	redisKeys  = 5000
	manyClones = 50
	// ownKeys asks for those that were written after the capture.
	ownKeys = `EVAL "return table.concat(redis.call('KEYS', 'own:*'), ' ')" 0`
)

// redis wants a server that keeps its dump in /data.
func redis(hostname string) want {
	w := want{Image: redisImage, Args: []string{"/usr/bin/redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--dir", "/var/lib/redis"}}
	w.Opts = []oci.SpecOpts{oci.WithHostname(hostname), oci.WithEnv([]string{"HOSTNAME=" + hostname})}
	return w.Annotate("identity", "/run/snap")
}

// redisClient speaks just enough of Redis's protocol.
type redisClient struct {
	conn net.Conn
	r    *bufio.Reader
}

// dialRedis connects once the server answers.
func dialRedis(t *testing.T, l *run.LAN, address string) (*redisClient, error) {
	ctx := testContext(t)
	for {
		conn, err := harness.DialIn(ctx, l.PID, address+":6379")
		if err == nil {
			err = conn.SetDeadline(time.Now().Add(deadline))
			return &redisClient{conn, bufio.NewReader(conn)}, err
		}
		if ctx.Err() != nil {
			return nil, errors.Join(err, ctx.Err())
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// do returns the answer to a command: a line, or the content of a bulk string.
func (c *redisClient) do(format string, args ...any) (string, error) {
	if _, err := fmt.Fprintf(c.conn, format+"\r\n", args...); err != nil {
		return "", err
	}
	line, err := c.r.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimRight(line, "\r\n")
	if strings.HasPrefix(line, "-") {
		return "", errors.New(line)
	}
	if !strings.HasPrefix(line, "$") || line == "$-1" {
		return line, nil
	}
	bulk, err := c.r.ReadString('\n')
	return strings.TrimRight(bulk, "\r\n"), err
}

// redisClone is one of many, and what is wrong with it.
type redisClone struct {
	c                 *container
	address, hostname string
	// own is what no other clone may have, as it is found in and around it.
	own  map[string]string
	took time.Duration
	err  error
}

// TestRedisClones starts fifty clones of a server with data at once. Each answers with
// the data at its own address, under its own name, and from then on is itself: none shares
// an address, a network, a host name, a generation, a written key or file with another.
func TestRedisClones(t *testing.T) {
	archive, err := harness.Image("redis")
	if err != nil {
		t.Fatal(err)
	}
	n := newNode(t, harness.Options{})
	if err := n.Import(testContext(t), archive); err != nil {
		t.Fatal(err)
	}
	l := run.NewLAN(t, "10.96.0.254/24")
	original := create(t, n, redis("original"))
	if _, err := l.Attach(original.Pid(), "10.96.0.253/24", nil); err != nil {
		t.Fatal(err)
	}
	if err := original.Task.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	o, err := dialRedis(t, l, "10.96.0.253")
	if err != nil {
		t.Fatal(err)
	}
	defer o.conn.Close()
	for i := range redisKeys {
		if _, err := o.do("SET key:%d value:%d", i, i*i); err != nil {
			t.Fatal(err)
		}
	}
	original.MustCapture(capture.Request{})
	if _, err := o.do("SET own:original original"); err != nil {
		t.Fatal(err)
	}

	clones := make([]*redisClone, manyClones)
	for i := range clones {
		hostname := fmt.Sprintf("clone-%02d", i)
		clones[i] = &redisClone{hostname: hostname, address: fmt.Sprintf("10.96.0.%d", i+1), c: newContainer(t, n, redis(hostname))}
	}
	var wg sync.WaitGroup
	for _, clone := range clones {
		wg.Go(func() { clone.err = clone.run(t, l) })
	}
	wg.Wait()
	wrong := 0
	seen := map[string]int{}
	for _, clone := range clones {
		if clone.err == nil {
			clone.err = clone.check(t, l)
		}
		for what, own := range clone.own {
			seen[what+" "+own]++
		}
	}
	for i, clone := range clones {
		err := clone.err
		for what, own := range clone.own {
			if own == "" {
				err = errors.Join(err, fmt.Errorf("it has no %s", what))
			}
			if n := seen[what+" "+own]; n > 1 {
				err = errors.Join(err, fmt.Errorf("%d clones share the %s %q", n, what, own))
			}
		}
		if err != nil {
			t.Errorf("clone %d: %v", i, err)
			wrong++
		}
	}
	if keys, err := o.do("%s", ownKeys); keys != "own:original" {
		t.Errorf("of the keys that were written after the capture, the original has %q (%v)", keys, err)
	}
	writeClones(t, clones, wrong)
}

// run starts the clone, and asks for data that was there at the capture.
func (r *redisClone) run(t *testing.T, l *run.LAN) error {
	begin := time.Now()
	if err := r.c.Create(redis(r.hostname)); err != nil {
		return err
	}
	if _, err := l.Attach(r.c.Pid(), r.address+"/24", nil); err != nil {
		return err
	}
	if err := r.c.Task.Start(testContext(t)); err != nil {
		return err
	}
	c, err := dialRedis(t, l, r.address)
	if err != nil {
		return err
	}
	defer c.conn.Close()
	last := redisKeys - 1
	got, err := c.do("GET key:%d", last)
	r.took = time.Since(begin)
	if want := "value:" + strconv.Itoa(last*last); err != nil || got != want {
		return fmt.Errorf("the first answer is %q (%w), want %s", got, err, want)
	}
	if size, err := c.do("DBSIZE"); err != nil || size != ":"+strconv.Itoa(redisKeys) {
		return fmt.Errorf("it holds %s keys (%w)", size, err)
	}
	for _, command := range []string{"SET own:" + r.hostname + " " + r.hostname, "SAVE"} {
		if _, err := c.do("%s", command); err != nil {
			return fmt.Errorf("%s: %w", command, err)
		}
	}
	return nil
}

// check looks at the clone when all others run, too: what it has is its own, and of what
// the others wrote it has nothing.
func (r *redisClone) check(t *testing.T, l *run.LAN) error {
	c, err := dialRedis(t, l, r.address)
	if err != nil {
		return err
	}
	defer c.conn.Close()
	var errs []error
	if keys, err := c.do("%s", ownKeys); err != nil || keys != "own:"+r.hostname {
		errs = append(errs, fmt.Errorf("of the keys that clones have written it has %q (%w)", keys, err))
	}
	root := fmt.Sprintf("/proc/%d/root", r.c.Pid())
	file := filepath.Join(root, "var/lib/redis/dump.rdb")
	dump, err := os.ReadFile(file)
	if names := slices.Compact(cloneName.FindAllString(string(dump), -1)); err != nil || !slices.Equal(names, []string{r.hostname}) {
		errs = append(errs, fmt.Errorf("its file is of the clones %q (%w)", names, err))
	}
	var st unix.Stat_t
	err = unix.Stat(file, &st)
	generation, gerr := os.ReadFile(filepath.Join(root, "run/snap/generation"))
	network, nerr := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", r.c.Pid()))
	name, herr := hostnameOf(r.c.Pid())
	addresses, aerr := addressesOf(r.c.Pid())
	errs = append(errs, err, gerr, nerr, herr, aerr)
	r.own = map[string]string{
		"file": fmt.Sprintf("%d:%d", st.Dev, st.Ino), "generation": string(generation), "network": network, "host name": name, "address": addresses,
	}
	if name != r.hostname || addresses != r.address {
		errs = append(errs, fmt.Errorf("its host name is %q, its addresses are %q", name, addresses))
	}
	record, rerr := r.c.RecordOf()
	if rerr == nil && record.Outcome != "restore" {
		errs = append(errs, fmt.Errorf("it was not restored: %s%s", record.Decision.Reason, record.Fallback))
	}
	return errors.Join(append(errs, rerr)...)
}

// cloneName is the name of a clone in what one has written.
var cloneName = regexp.MustCompile(`clone-[0-9]{2}`)

// addressesOf lists the IPv4 addresses that a process sees, but for the loopback device's.
func addressesOf(pid int) (string, error) {
	var found []string
	err := harness.InNetNS(pid, func() error {
		all, err := net.InterfaceAddrs()
		for _, a := range all {
			if ip, ok := a.(*net.IPNet); ok && !ip.IP.IsLoopback() && ip.IP.To4() != nil {
				found = append(found, ip.IP.String())
			}
		}
		return err
	})
	return strings.Join(found, " "), err
}

// hostnameOf reads the host name that a process sees.
func hostnameOf(pid int) (name string, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // the thread ends with the goroutine
		var ns *os.File
		if ns, err = os.Open(fmt.Sprintf("/proc/%d/ns/uts", pid)); err != nil {
			return
		}
		defer ns.Close()
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWUTS); err != nil {
			return
		}
		name, err = os.Hostname()
	}()
	<-done
	return name, err
}

// writeClones writes what came of the clones to out/clones.json: how many there were,
// how many were wrong, and the time from Create to the first answer.
func writeClones(t *testing.T, clones []*redisClone, wrong int) {
	t.Helper()
	var ms []float64
	for _, c := range clones {
		ms = append(ms, float64(c.took.Microseconds())/1000)
	}
	slices.Sort(ms)
	content, err := json.MarshalIndent(map[string]any{
		"clones": len(clones), "wrong": wrong, "p50_ms": ms[len(ms)/2], "p95_ms": ms[len(ms)*95/100],
	}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", content)
	if err := os.MkdirAll("../../out", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("../../out/clones.json", append(content, '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
}

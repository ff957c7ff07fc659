package programs

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/test/harness"
	"github.com/containerd-snap/snap/test/harness/run"
)

// patience bounds the way of a program to its first answer: initdb takes seconds.
const patience = 90 * time.Second

// program is what is known of a program's data.
type program interface {
	// load waits for the program, gives it its data, and leaves open what a capture must cope with.
	load(*instance) error
	// goesOn is about the captured program, after the capture: what was open still is.
	goesOn(*instance) error
	// holds checks that the data are those of the capture and what change added under
	// these names, no more and no less.
	holds(i *instance, names ...string) error
	// change gives the program data of its own.
	change(i *instance, name string) error
}

// instance is one container of the program.
type instance struct {
	*run.Container
	lan     *run.LAN
	address string
}

// survives captures a program, starts three clones at once, and the clone of one of them.
func survives(t *testing.T, w run.Want, p program) {
	t.Helper()
	lan := run.NewLAN(t, "10.97.0.254/24")
	last := 0
	prepared := func(w run.Want) *instance {
		last++
		return &instance{Container: run.New(t, shared, w), lan: lan, address: fmt.Sprintf("10.97.0.%d", last)}
	}
	original := prepared(w)
	must(t, "start", original.start(w))
	must(t, "load", p.load(original))
	e := original.CreateCheckpoint()
	must(t, "after the capture", p.goesOn(original))
	must(t, "after the capture", p.change(original, "original"))
	must(t, "after the capture", p.holds(original, "original"))

	clones := []*instance{prepared(w), prepared(w), prepared(w)}
	at := func(what string, do func(c *instance, name string) error) {
		t.Helper()
		errs := make([]error, len(clones))
		var wg sync.WaitGroup
		for i, c := range clones {
			wg.Go(func() { errs[i] = do(c, fmt.Sprint("clone-", i)) })
		}
		wg.Wait()
		for i, err := range errs {
			must(t, fmt.Sprintf("clone %d: %s", i, what), err)
		}
	}
	at("start", func(c *instance, _ string) error { return c.start(w) })
	at("as at the capture", func(c *instance, _ string) error { return p.holds(c) })
	at("change", p.change)
	at("on its own", func(c *instance, name string) error { return p.holds(c, name) })
	for _, c := range clones {
		c.explained(e)
	}

	again := clones[1].CreateCheckpoint()
	w = w.Annotate("checkpoint", again.Digest)
	second := prepared(w)
	must(t, "start the clone of a clone", second.start(w))
	must(t, "the clone of a clone", p.holds(second, "clone-1"))
	must(t, "the clone of a clone", p.change(second, "second"))
	must(t, "the clone of a clone", p.holds(second, "clone-1", "second"))
	second.explained(again)
	must(t, "a clone that was captured", p.holds(clones[1], "clone-1"))
	must(t, "the captured program", p.holds(original, "original"))
}

func must(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// start starts the container at its address.
func (i *instance) start(w run.Want) error {
	if err := i.Create(w); err != nil {
		return err
	}
	if _, err := i.lan.Attach(i.Pid(), i.address+"/24", nil); err != nil {
		return err
	}
	return i.Task.Start(run.Context(i.T))
}

// explained checks that snapctl tells of a restore from the checkpoint.
func (i *instance) explained(e checkpoint.Entry) {
	i.T.Helper()
	var x struct{ Start checkpoint.Start }
	run.Snapctl(i.T, i.Node, &x, "explain", i.ID())
	if s := x.Start; s.Decision.Action != checkpoint.Restore || s.Outcome != checkpoint.Restore || s.Decision.Digest != e.Digest {
		i.T.Errorf("%s: want a restore from %s, explain says %+v", i.ID(), e.Digest, s)
	}
}

// dial connects to a port of the instance, from within its network.
func (i *instance) dial(ctx context.Context, port int) (net.Conn, error) {
	return harness.DialIn(ctx, i.lan.PID, fmt.Sprintf("%s:%d", i.address, port))
}

// get asks by HTTP, with a connection of its own.
func (i *instance) get(path string) (string, error) {
	ctx, cancel := context.WithTimeout(i.T.Context(), run.Deadline)
	defer cancel()
	conn, err := i.dial(ctx, httpPort)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	transport := &http.Transport{
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return conn, nil },
		DisableKeepAlives: true,
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s:%d%s", i.address, httpPort, path), http.NoBody)
	if err != nil {
		return "", err
	}
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return "", fmt.Errorf("get %s: %w", path, err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("get %s: %s: %s", path, answer.Status, body)
	}
	return string(body), err
}

// httpPort is where those listen that speak HTTP.
const httpPort = 8080

// gets checks an answer.
func (i *instance) gets(path, want string) error {
	got, err := i.get(path)
	if err == nil && got != want {
		err = fmt.Errorf("get %s: %.200q, want %.200q", path, got, want)
	}
	return err
}

// eventually calls check until it returns nil, at most for the time.
func eventually(t *testing.T, most time.Duration, check func() error) error {
	ctx, cancel := context.WithTimeout(t.Context(), most)
	defer cancel()
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("within %s: %w", most, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

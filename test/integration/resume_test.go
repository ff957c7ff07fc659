package integration

import (
	"context"
	"errors"
	"fmt"
	bigint "math/big"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/runtime/restart"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/test/harness"
)

// kills is how often the program that computes pi is killed.
const kills = 20

// computation is a container that computes pi and is started again, by containerd's
// restart monitor, whenever it ends.
type computation struct {
	*container
	// digits are what was found in its file last.
	digits string
	pi     string
}

func startComputation(t *testing.T, n *harness.Node) *computation {
	t.Helper()
	c := newContainer(t, n, want{Image: probeImage, Args: []string{"/bin/pi"}}.Annotate("capture", "Every=1s").Named(t, "job"))
	t.Cleanup(func() { // before the container's own
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), deadline)
		defer cancel()
		current, err := n.Client().LoadContainer(ctx, c.ID())
		if err == nil {
			c.Container = current
			err = current.Update(ctx, client.UpdateContainerOpts(client.WithAdditionalContainerLabels(map[string]string{restart.StatusLabel: string(client.Stopped)})))
		}
		if err != nil {
			t.Error(err)
		}
	})
	said := filepath.Join(n.Dir, "pi.log")
	t.Cleanup(func() {
		if text, err := os.ReadFile(said); t.Failed() && err == nil {
			t.Logf("the program said:\n%s", text)
		}
	})
	labels := client.UpdateContainerOpts(restart.WithStatus(client.Running))
	output := client.UpdateContainerOpts(restart.WithLogURI(&url.URL{Scheme: "file", Path: said}))
	if err := c.Update(testContext(t), labels, output); err != nil {
		t.Fatal(err)
	}
	return &computation{container: c, pi: pi(20_000)}
}

// pi computes digits in a way of its own: by Machin's formula.
func pi(digits int) string {
	unity := new(bigint.Int).Exp(bigint.NewInt(10), bigint.NewInt(int64(digits+10)), nil)
	arccot := func(x int64) *bigint.Int {
		sum, square := new(bigint.Int).Quo(unity, bigint.NewInt(x)), bigint.NewInt(x*x)
		term := new(bigint.Int).Set(sum)
		for n := int64(3); term.Sign() > 0; n += 2 {
			term.Quo(term, square)
			part := new(bigint.Int).Quo(term, bigint.NewInt(n))
			if n%4 == 3 {
				part.Neg(part)
			}
			sum.Add(sum, part)
		}
		return sum
	}
	p := new(bigint.Int).Mul(bigint.NewInt(16), arccot(5))
	p.Sub(p, new(bigint.Int).Mul(bigint.NewInt(4), arccot(239)))
	return p.String()[:digits]
}

// running returns the running task's pid.
func (c *computation) running() (int, error) {
	ctx, cancel := context.WithTimeout(c.T.Context(), 5*time.Second)
	defer cancel()
	current, err := c.Node.Client().LoadContainer(ctx, c.ID())
	if err != nil {
		return 0, err
	}
	task, err := current.Task(ctx, nil)
	if err != nil {
		return 0, err
	}
	st, err := task.Status(ctx)
	if err != nil {
		return 0, err
	}
	if st.Status != client.Running {
		return 0, fmt.Errorf("the task is %s", st.Status)
	}
	return int(task.Pid()), nil
}

// advances waits until the computation has gone on after what it had, and checks every
// digit. It returns the pid.
func (c *computation) advances(from int) (pid int) {
	c.T.Helper()
	eventually(c.T, func() error {
		var err error
		if pid, err = c.running(); err != nil {
			return err
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/root/pi", pid))
		if err != nil {
			return err
		}
		if c.digits = string(b); len(c.digits) <= from {
			return fmt.Errorf("%d digits, %d were there", len(b), from)
		}
		return nil
	})
	c.check()
	return pid
}

func (c *computation) check() {
	c.T.Helper()
	if len(c.digits) > len(c.pi) {
		c.T.Fatalf("%d digits, more than were computed for comparison", len(c.digits))
	}
	for i := range c.digits {
		if c.digits[i] != c.pi[i] {
			c.T.Fatalf("digit %d of %d is %c, want %c", i, len(c.digits), c.digits[i], c.pi[i])
		}
	}
}

// points are the computation's resume points, newest first.
func (c *computation) points() []checkpoint.Entry {
	c.T.Helper()
	points, err := openStore(c.T, c.Node).Lookup(checkpoint.OwnerKey(c.Node.Namespace + "/container/" + c.ID()))
	if err != nil {
		c.T.Fatal(err)
	}
	return points
}

// tear spoils the newest resume point, as a write would that the machine did not finish,
// and leaves a draft that nobody owns.
func (c *computation) tear(r *rand.Rand) error {
	points := slices.DeleteFunc(c.points(), func(e checkpoint.Entry) bool { return e.State.Failures > 0 })
	if len(points) < 2 {
		return nil // there must be a good one before it
	}
	images := filepath.Join(points[0].Dir, "images")
	pages, err := os.OpenFile(filepath.Join(images, "pages-1.img"), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer pages.Close()
	st, err := pages.Stat()
	if err != nil {
		return err
	}
	switch r.IntN(3) {
	case 0:
		err = pages.Truncate(r.Int64N(st.Size()))
	case 1:
		_, err = pages.WriteAt([]byte("these bytes are not the program's"), r.Int64N(st.Size()-100))
	case 2:
		err = os.Remove(filepath.Join(images, "inventory.img"))
	}
	if err != nil {
		return err
	}
	return os.MkdirAll(filepath.Join(c.Node.StoreRoot, "drafts", "torn", "images"), 0o700)
}

// TestCrashResume kills a computation again and again at random moments: the program, the
// program's shim, or everything at once with the newest resume point torn. It goes on from
// its last good resume point each time, without one wrong, doubled or lost digit.
func TestCrashResume(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	n := newNode(t, harness.Options{})
	c := startComputation(t, n)
	c.advances(0)
	eventually(t, func() error {
		if got := len(c.points()); got < 2 {
			return fmt.Errorf("%d resume points", got)
		}
		return nil
	})
	resumes := 0
	for round := range kills {
		pid := c.advances(0)
		before, err := c.RecordOf()
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(r.IntN(2000)) * time.Millisecond)
		what := []string{"program", "shim", "machine"}[round%3]
		switch what {
		case "program":
			err = unix.Kill(pid, unix.SIGKILL)
		case "shim":
			err = unix.Kill(before.ShimPID, unix.SIGKILL)
		case "machine":
			err = errors.Join(n.Crash(true), c.tear(r), n.Relaunch(t.Context(), harness.Options{}))
		}
		if err != nil {
			t.Fatal(err)
		}
		var after checkpoint.Start
		eventually(t, func() error {
			if after, err = c.RecordOf(); err == nil && (after.At.Equal(before.At) || after.PID == 0) {
				err = fmt.Errorf("%s killed, and not started again", what)
			}
			return err
		})
		if after.Outcome != checkpoint.Restore {
			t.Fatalf("round %d, %s killed: %+v", round, what, after)
		}
		resumed := slices.IndexFunc(after.Decision.Verdicts, func(v checkpoint.Verdict) bool { return v.Digest == after.Decision.Digest })
		if resumed < 0 {
			t.Fatalf("no verdict on what was restored: %+v", after.Decision)
		}
		resumes++
		had := len(c.digits)
		c.advances(0)
		t.Logf("round %d: %s killed, %d digits; %s; %d digits", round, what, had, after.Decision.Reason, len(c.digits))
	}
	if _, err := openStore(t, n).Sweep(); err != nil { // of what was torn last
		t.Error(err)
	}
	if c.advances(len(c.digits)); resumes != kills {
		t.Errorf("%d of %d starts went on", resumes, kills)
	}
	// A program that finds memory and file in disagreement ends, and would be started again.
	log, err := n.Log()
	if err != nil {
		t.Fatal(err)
	}
	if starts := strings.Count(log, `msg="task started"`); starts != kills+1 {
		t.Errorf("%d starts after %d kills", starts, kills)
	}
}

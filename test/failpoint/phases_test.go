package failpoint

import (
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/client"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/test/failpoint/fault"
)

// TestPhasesOfABoot kills the shim at the end of each phase of a boot.
func TestPhasesOfABoot(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for _, phase := range []string{"spec", "decide", "stdio", "rootfs", "create", "release"} {
		t.Run(phase, func(t *testing.T) {
			c := newContainer(t, n, "phase "+phase, fault.Kill)
			c.dies()
			c.again()
		})
	}
	settled(t, n)
}

// TestPhasesOfARestore does so with a restore. What is registered stays.
func TestPhasesOfARestore(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	original := newContainer(t, n, "", "")
	original.must(original.create())
	original.must(original.start())
	if _, err := n.Snapctl(original.context(), "create", original.ID(), "--name", "ready"); err != nil {
		t.Fatal(err)
	}
	original.must(original.end())
	original.must(original.delete())
	for _, phase := range []string{"spec", "decide", "stdio", "verify", "rootfs", "namespaces", "hold", "restore"} {
		t.Run(phase, func(t *testing.T) {
			c := newContainer(t, n, "phase "+phase, fault.Kill)
			c.dies()
			c.again()
		})
	}
	out, err := n.Snapctl(original.context(), "doctor", "--verify")
	if strings.Contains(out.Stdout+out.Stderr, "damaged") {
		t.Errorf("%v: %s%s", err, out.Stdout, out.Stderr)
	}
	clone := newContainer(t, n, "", "")
	clone.must(clone.create())
	clone.must(clone.start())
	if out, err := n.Snapctl(clone.context(), "explain", clone.ID()); err != nil || !strings.Contains(out.Stdout, "outcome       restore") {
		t.Errorf("%v: %s", err, out.Stdout)
	}
	// The drafts of the dead are swept with the next capture.
	if _, err := n.Snapctl(clone.context(), "create", clone.ID(), "--name", "next"); err != nil {
		t.Error(err)
	}
	clone.must(clone.end())
	clone.must(clone.delete())
	settled(t, n)
}

// dies creates and starts a task whose shim dies at one of the two.
func (c *container) dies() {
	c.Helper()
	err := c.create()
	if err == nil {
		err = c.start()
	}
	if err == nil || !c.happened() {
		c.Fatalf("the shim did not die: %v", err)
	}
	c.gone()
}

// TestDelay: while a start takes its time, others get answers, and a kill reaches
// the task.
func TestDelay(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for _, when := range []string{"before ", "after "} {
		t.Run(when+"start", func(t *testing.T) {
			c := newContainer(t, n, "Start", when+fault.Delay)
			c.must(c.create())
			c.must(c.wait())
			started := make(chan error, 1)
			go func() { started <- c.start() }()
			c.eventually(func() error {
				if !c.happened() {
					return fmt.Errorf("no fault yet")
				}
				return nil
			})
			st, err := c.task.Status(c.context())
			c.must(err)
			if want := map[string]client.ProcessStatus{"before ": client.Created, "after ": client.Running}[when]; st.Status != want {
				t.Errorf("meanwhile the task is %s, want %s", st.Status, want)
			}
			c.must(c.task.Kill(c.context(), unix.SIGKILL))
			if st := <-c.exit; st.ExitCode() != 137 {
				t.Errorf("exit status %d, %v", st.ExitCode(), st.Error())
			}
			if err := <-started; (err == nil) != (when == "after ") {
				t.Errorf("the start says %v", err)
			}
			c.must(c.delete())
		})
	}
	settled(t, n)
}

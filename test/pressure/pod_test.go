package pressure

import (
	"flag"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/oci"

	"github.com/containerd-snap/snap/test/harness"
)

var podTasks = flag.Int("pod-tasks", 500, "how many short tasks a pod's shim runs, one after the other")

const (
	// podWarmUp tasks come before the first measurement.
	podWarmUp = 100
	// podGrowth is by how much memory the shim may grow after that: what garbage
	// a heap of this size can hold. 4 KiB lost with each of 400 tasks are more.
	podGrowth = 1536 << 10
	// podThreads is by how many threads: Go starts one when all others are in
	// system calls, and keeps it.
	podThreads = 8
)

// podSize is what a pod's shim holds after a number of tasks.
type podSize struct {
	Tasks   int    `json:"tasks"`
	Memory  memory `json:"memory"`
	FDs     int    `json:"fds"`
	Threads int    `json:"threads"`
}

// TestManyTasks runs short tasks in one shim, which must not grow.
func TestManyTasks(t *testing.T) {
	n := newNode(t, harness.Options{})
	group := []oci.SpecOpts{oci.WithAnnotations(map[string]string{"io.containerd.runc.v2.group": "pod"})}
	first, err := start(testContext(t), n, snap, "first", group, "sleep", "100000")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := first.remove(); err != nil {
			t.Error(err)
		}
	}()
	shim := shimOf(t, first)
	var sizes []podSize
	for from, to := 0, podWarmUp; from < *podTasks; from, to = to, min(*podTasks, to+200) {
		shortTasks(t, n, group, from, to)
		sizes = append(sizes, sizeOf(t, shim, to))
	}
	report(t, "pod.json", sizes)
	before, after := sizes[0], sizes[len(sizes)-1]
	if after.Memory.RSS > before.Memory.RSS+podGrowth || after.Memory.PSS > before.Memory.PSS+podGrowth {
		t.Errorf("the shim grew from %+v to %+v", before, after)
	}
	if after.FDs > before.FDs || after.Threads > before.Threads+podThreads {
		t.Errorf("the shim grew from %+v to %+v", before, after)
	}
}

// shortTasks runs tasks that end by themselves, four at a time.
func shortTasks(t *testing.T, n *harness.Node, group []oci.SpecOpts, from, to int) {
	t.Helper()
	numbers := make(chan int)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range numbers {
				if err := shortTask(t, n, group, fmt.Sprint("short", i)); err != nil {
					t.Errorf("task %d: %v", i, err)
				}
			}
		})
	}
	for i := from; i < to && !t.Failed(); i++ {
		numbers <- i
	}
	close(numbers)
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

func shortTask(t *testing.T, n *harness.Node, group []oci.SpecOpts, id string) error {
	t.Helper()
	c, err := start(t.Context(), n, snap, id, group, "echo", "done")
	if err != nil {
		return err
	}
	status, err := c.wait(t.Context())
	if err == nil && status != 0 {
		err = fmt.Errorf("exit status %d", status)
	}
	if rerr := c.remove(); err == nil {
		err = rerr
	}
	return err
}

// sizeOf measures a shim that has come to rest.
func sizeOf(t *testing.T, shim, tasks int) podSize {
	t.Helper()
	time.Sleep(settle)
	s := podSize{Tasks: tasks, Memory: memoryOf(t, shim)}
	var f footprint
	f.count(t, shim)
	s.FDs, s.Threads = f.FDs, f.Threads
	return s
}

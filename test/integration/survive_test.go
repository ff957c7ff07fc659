package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/cio"

	"github.com/containerd-snap/snap/test/harness"
)

// TestOutputSurvives: no byte of a task's output is lost or told twice when
// containerd is killed and comes back.
func TestOutputSurvives(t *testing.T) {
	t.Parallel()
	const lines = 3000
	n := newNode(t, harness.Options{})
	// It ends when it is told: containerd, when it comes back, deletes a task that has ended.
	w := shell(fmt.Sprintf("trap end=1 TERM; i=0; while [ $i -lt %d ]; do i=$((i+1)); echo line $i; usleep 200; done; while [ -z $end ]; do usleep 10000; done", lines))
	fifo := start(t, n, w)
	file := newContainer(t, n, w)
	path := filepath.Join(t.TempDir(), "log")
	var err error
	if file.Task, err = file.NewTask(testContext(t), cio.LogFile(path)); err != nil {
		t.Fatal(err)
	}
	if err := file.Task.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	fifo.Out.WaitFor(t, "line 100\n")
	for range 2 {
		bounce(t, n, func() { time.Sleep(100 * time.Millisecond) })
	}
	for _, c := range []*container{fifo, file} {
		rewait(c)
		c.Kill(syscall.SIGTERM)
		if got := c.Wait(); got != 0 {
			t.Errorf("exit status %d", got)
		}
	}
	var want strings.Builder
	for i := range lines {
		fmt.Fprintln(&want, "line", i+1)
	}
	fifo.Out.WaitFor(t, fmt.Sprintf("line %d\n", lines))
	if fifo.Out.String() != want.String() {
		t.Errorf("%d bytes came through the FIFO, want %d", len(fifo.Out.String()), want.Len())
	}
	eventually(t, func() error {
		log, err := os.ReadFile(path)
		if err == nil && string(log) != want.String() {
			err = fmt.Errorf("%d bytes are in the log file, want %d", len(log), want.Len())
		}
		return err
	})
}

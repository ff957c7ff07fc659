package cri

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"k8s.io/cri-client/pkg/logs"
)

// logFile is the path of the container's log.
func (c *container) logFile() string {
	return filepath.Join(c.pod.config.GetLogDirectory(), c.config.GetLogPath())
}

// log returns the lines of the log as they are.
func (c *container) log() []string {
	c.t.Helper()
	data, err := os.ReadFile(c.logFile())
	if err != nil {
		c.t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
}

// logHas waits until the log holds text.
func (c *container) logHas(text string) {
	c.t.Helper()
	eventually(c.t, func() error {
		if log := c.log(); !strings.Contains(strings.Join(log, "\n"), text) {
			return fmt.Errorf("the log lacks %q: %q", text, log)
		}
		return nil
	})
}

// line is one of a log in CRI's format.
var line = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+(?:Z|[+-]\d\d:\d\d) (stdout|stderr) ([FP]) (.*)$`)

// TestLogs: each line with its time, its stream and whether it is whole.
func TestLogs(t *testing.T) {
	each(t, func(t *testing.T, handler string) {
		p := runPod(t, handler)
		const long = 40000
		c := p.startShell("a", fmt.Sprintf("echo one; echo two >&2; head -c %d /dev/zero | tr '\\0' x; echo; printf 'no newline'", long))
		c.ended()
		streams, partial := map[string][]string{}, map[string]string{}
		for _, l := range c.log() {
			m := line.FindStringSubmatch(l)
			if m == nil {
				t.Fatalf("line %.80q", l)
			}
			if partial[m[1]] += m[3]; m[2] == "F" {
				streams[m[1]] = append(streams[m[1]], partial[m[1]])
				partial[m[1]] = ""
			}
		}
		if partial["stdout"] != "" {
			streams["stdout"] = append(streams["stdout"], partial["stdout"])
		}
		if want := []string{"two"}; fmt.Sprint(streams["stderr"]) != fmt.Sprint(want) {
			t.Errorf("stderr %q", streams["stderr"])
		}
		if want := []string{"one", strings.Repeat("x", long), "no newline"}; fmt.Sprint(streams["stdout"]) != fmt.Sprint(want) {
			t.Errorf("stdout %.200q", streams["stdout"])
		}
		// What kubectl logs does.
		var stdout, stderr strings.Builder
		if err := logs.ReadLogs(testContext(t), c.logFile(), c.id, &logs.LogOptions{}, runtime, &stdout, &stderr); err != nil {
			t.Fatal(err)
		}
		if stderr.String() != "two\n" || !strings.HasPrefix(stdout.String(), "one\nxxx") || !strings.HasSuffix(stdout.String(), "no newline") {
			t.Errorf("stdout %.80q, stderr %q", stdout.String(), stderr.String())
		}
	})
}

// TestReopenLog moves a log away, as a kubelet does that rotates it.
func TestReopenLog(t *testing.T) {
	each(t, func(t *testing.T, handler string) {
		p := runPod(t, handler)
		c := p.startShell("a", "trap 'echo again' USR1; trap 'exit 0' TERM; echo first; while :; do sleep 0.05; done")
		c.logHas("first")
		c.rotate(func() { c.run("kill", "-USR1", "1") }, "again")
	})
}

// rotate moves the container's log away and has it made anew. Then it lets the
// container say something.
func (c *container) rotate(speak func(), says string) {
	c.t.Helper()
	if err := os.Rename(c.logFile(), c.logFile()+".1"); err != nil {
		c.t.Fatal(err)
	}
	if err := runtime.ReopenContainerLog(testContext(c.t), c.id); err != nil {
		c.t.Fatal(err)
	}
	speak()
	c.logHas(says)
	if log := c.log(); len(log) != 1 {
		c.t.Errorf("the new log holds %q", log)
	}
}

// TestFollowLogs reads a log while it grows, until its container ends.
func TestFollowLogs(t *testing.T) {
	each(t, func(t *testing.T, handler string) {
		p := runPod(t, handler)
		c := p.startShell("a", "for n in 1 2 3 4 5; do echo $n; sleep 0.1; done")
		ctx, cancel := context.WithTimeout(t.Context(), deadline)
		defer cancel()
		var out strings.Builder
		if err := logs.ReadLogs(ctx, c.logFile(), c.id, &logs.LogOptions{Follow: true}, runtime, &out, &out); err != nil {
			t.Fatal(err)
		}
		if out.String() != "1\n2\n3\n4\n5\n" {
			t.Errorf("the log is %q", out.String())
		}
	})
}

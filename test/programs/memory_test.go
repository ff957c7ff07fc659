package programs

import (
	"fmt"
	"strings"
	"testing"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/shim/capture"
	"github.com/containerd-snap/snap/test/harness/run"
)

// TestMemory: the memory of runtimes with compilers and collectors of their own is copied, with the
// reason. Mapped memory, forced upon them, is right, too, over many collections, also after a
// capture of the restored program. That does not prove that it always is: docs/memory.md.
func TestMemory(t *testing.T) {
	t.Parallel()
	const jit = "executable memory that is no file"
	java := func(options ...string) []string {
		return append(append([]string{"/usr/bin/java", "-Xms64m", "-Xmx256m"}, options...), "/app/Memory.java")
	}
	for _, test := range []struct {
		name, image, reason string
		args                []string
	}{
		{"JVM, Serial", "java", jit, java("-XX:+UseSerialGC", "-XX:MinHeapFreeRatio=5", "-XX:MaxHeapFreeRatio=10")},
		{"JVM, G1", "java", jit, java("-XX:+UseG1GC", "-XX:MinHeapFreeRatio=5", "-XX:MaxHeapFreeRatio=10")},
		{"JVM, ZGC", "java", jit, java("-XX:+UseZGC", "-XX:ZUncommitDelay=1")},
		{"V8", "node", jit, []string{"/usr/bin/node", "--expose-gc", "/app/memory.js"}},
		{"Ruby", "rails", "libruby", []string{"ruby", "/app/memory.rb"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			auto := want(t, test.image, nil, test.args...)
			w := auto.Annotate("memory", "mapped")
			c := run.Start(t, shared, w)
			rounds(t, c, 3)
			e := c.MustCapture(capture.Request{Stop: true})
			copied := run.Start(t, shared, auto)
			copied.MustRestored(e)
			copied.MustMemory(checkpoint.MemoryCopy, test.reason)
			rounds(t, copied, 2)
			if err := copied.Remove(); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if m := e.Checkpoint.Memory; m.Form != checkpoint.MemoryMapped || m.Safe || !strings.Contains(m.Reason, test.reason) {
					t.Fatalf("the checkpoint's memory is %+v", m)
				}
				c = run.Start(t, shared, w.Annotate("checkpoint", e.Digest))
				c.MustRestored(e)
				c.MustMemory(checkpoint.MemoryMapped, "was asked for")
				rounds(t, c, 8)
				e = c.MustCapture(capture.Request{Stop: true})
			}
		})
	}
}

// rounds waits until a program has checked its memory n more times.
func rounds(t *testing.T, c *run.Container, n int) {
	t.Helper()
	had := strings.Count(c.Out.String(), "ok ")
	err := eventually(t, patience, func() error {
		out := c.Out.String()
		if strings.Contains(out, "wrong: ") {
			t.Fatal(out)
		}
		if got := strings.Count(out, "ok ") - had; got < n {
			return fmt.Errorf("%d rounds of %d: %q", got, n, out)
		}
		return nil
	})
	must(t, "check its memory", err)
}

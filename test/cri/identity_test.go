package cri

import (
	"strings"
	"testing"

	"github.com/containerd-snap/snap/shim/capture"
)

// TestIdentity: a container of a pod is told who it is, with the pod's host name and the
// kubelet's environment, before it runs: booted, restored in another pod, and restored again.
func TestIdentity(t *testing.T) {
	t.Parallel()
	const script = `cd /run/snap; while :; do g=$(cat generation); [ "$g" = "$l" ] || { l=$g; printf '%s|%s|%s|%s.\n' "$g" "$(cat hostname)" "$(cat checkpoint)" "$(tr '\0' '\n' <env | grep ^HOSTNAME=)"; }; done`
	seen := map[string]bool{}
	// says checks the first thing that a new container in a new pod writes to its log.
	says := func(digest string) *container {
		t.Helper()
		p := runPod(t, snap, annotate(map[string]string{"identity": "/run/snap"}))
		c := p.startShell("web", script)
		c.logHas(".")
		m := line.FindStringSubmatch(c.log()[0])
		if m == nil {
			t.Fatalf("the log begins with %q", c.log())
		}
		is := strings.Split(strings.TrimSuffix(m[3], "."), "|")
		hostname := p.config.GetHostname()
		if len(is) != 4 || len(is[0]) < 20 || seen[is[0]] || is[1] != hostname || is[2] != digest || is[3] != "HOSTNAME="+hostname {
			t.Errorf("in pod %s it says %q", hostname, m[3])
		}
		seen[is[0]] = true
		return c
	}
	first := says("")
	e := first.capture(capture.Request{})
	second := says(e.Digest)
	second.restored(e)
	again := second.capture(capture.Request{})
	third := says(again.Digest)
	third.restored(again)
}

package integration

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/shim/capture"
	"github.com/containerd-snap/snap/test/harness"
)

// failure is a way in which a restore fails.
type failure struct {
	// says is what the record must say of it.
	says string
	// decision: it is foreseen, so that the start decides to boot, rather than
	// tries and falls back.
	decision bool
	// opts are for the captured container and its clones.
	opts func(t *testing.T) []oci.SpecOpts
	args []string
	// damage is done before the clone is made, prepare between its making and
	// its task's, meddle between Create and Start.
	damage  func(t *testing.T, n *harness.Node, e checkpoint.Entry)
	prepare func(t *testing.T, c *container)
	meddle  func(t *testing.T, c *container)
}

// failures is the matrix of what can go wrong.
var failures = map[string]failure{
	"no CRIU": {
		says: "no CRIU", decision: true,
		damage: func(t *testing.T, n *harness.Node, _ checkpoint.Entry) { t.Helper(); replaceCRIU(t, n, "") },
	},
	"CRIU fails at once": {
		says: "CRIU",
		damage: func(t *testing.T, n *harness.Node, _ checkpoint.Entry) {
			t.Helper()
			wrapCRIU(t, n, `[ "$1" = swrk ] && exit 1`)
		},
	},
	"CRIU is killed before the task exists": {
		says: "CRIU",
		damage: func(t *testing.T, n *harness.Node, _ checkpoint.Entry) {
			t.Helper()
			wrapCRIU(t, n, `[ "$1" = swrk ] && (sleep 0.01; kill -9 $$) &`)
		},
	},
	"CRIU is killed when the task exists": {says: "CRIU", meddle: killHolder},
	"the task is killed by a stranger": {says: "restore container", meddle: func(t *testing.T, c *container) {
		t.Helper()
		if err := unix.Kill(c.Pid(), unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}},
	"images missing":      {says: "damaged", damage: onFile("core-1.img", os.Remove)},
	"inventory missing":   {says: "damaged", damage: onFile("inventory.img", os.Remove)},
	"descriptors missing": {says: "damaged", damage: onFile("descriptors.json", os.Remove)},
	"images truncated":    {says: "damaged", damage: onFile("mm-1.img", func(path string) error { return os.Truncate(path, 20) })},
	"images changed":      {says: "damaged", damage: onFile("core-1.img", flipBit)},
	"pages truncated":     {says: "damaged", damage: onFile("pages-1.img", func(path string) error { return os.Truncate(path, 4096) })},
	"pages missing":       {says: "damaged", damage: onFile("pages-1.img", os.Remove)},
	"captured by a new CRIU": {says: "is older than at capture", decision: true, damage: func(t *testing.T, n *harness.Node, e checkpoint.Entry) {
		t.Helper()
		forge(t, n, e, func(c *checkpoint.Checkpoint) { c.Host.CRIU = 990000 })
	}},
	"a CPU feature missing": {says: "this CPU lacks", decision: true, damage: func(t *testing.T, n *harness.Node, e checkpoint.Entry) {
		t.Helper()
		forge(t, n, e, func(c *checkpoint.Checkpoint) { c.Host.CPUFeatures = append(c.Host.CPUFeatures, "zzz") })
	}},
	"an open file differs": {
		says: "/bound/counter of the mount /bound", decision: true, args: []string{"/bin/probe", "-file", "/bound/counter"}, opts: bindDirectory,
		prepare: boundCounter(100),
	},
	"an open file changes": {
		// The probe's counter has 21 bytes.
		says: "it has 100 bytes now, not 21", args: []string{"/bin/probe", "-file", "/bound/counter"}, opts: bindDirectory,
		prepare: boundCounter(21), meddle: boundCounter(100),
	},
	"no space for the files": {says: "space", prepare: func(t *testing.T, c *container) { t.Helper(); tinyLayer(t, c) }},
}

// boundCounter gives the probe's file of a bound directory another length.
func boundCounter(size int) func(*testing.T, *container) {
	return func(t *testing.T, c *container) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(boundDir(c.ID()), "counter"), make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func (f failure) want(t *testing.T) want {
	t.Helper()
	w := probeOf()
	if f.args != nil {
		w.Args = f.args
	}
	if f.opts != nil {
		w.Opts = f.opts(t)
	}
	return w
}

// capture runs and captures the container, and does the damage.
func (f failure) capture(t *testing.T, n *harness.Node, w want) (*container, checkpoint.Entry, probeState) {
	t.Helper()
	c := start(t, n, w)
	before := c.Probe()
	c.MustExec("sh", "-c", "head -c 1000000 /dev/urandom >/marker")
	e := c.MustCapture(capture.Request{Name: "demanded", Replace: true})
	if f.damage != nil {
		f.damage(t, n, e)
	}
	return c, e, before
}

func (f failure) prepareFor(t *testing.T, c *container) {
	t.Helper()
	if f.prepare != nil {
		f.prepare(t, c)
	}
}

// recorded checks that record, log and state tell of the failure.
func (f failure) recorded(t *testing.T, c *container, e checkpoint.Entry) {
	t.Helper()
	if f.decision {
		c.MustBooted(f.says)
		return
	}
	r := c.Record()
	if r.Outcome != checkpoint.Boot || r.Decision.Action != checkpoint.Restore || !strings.Contains(r.Fallback, f.says) {
		t.Errorf("record %+v, want a fallback that says %q", r, f.says)
	}
	st, err := openStore(t, c.Node).Resolve(e.Digest)
	if err != nil || st.State.Failures != 1 || !strings.Contains(st.State.LastFailure, f.says) {
		t.Errorf("state %+v, %v, want one failure that says %q", st.State, err, f.says)
	}
	log, err := c.Node.Log()
	if err != nil {
		t.Fatal(err)
	}
	told := slices.ContainsFunc(strings.Split(log, "\n"), func(line string) bool {
		return strings.Contains(line, "level=warning") && strings.Contains(line, "restore failed") && strings.Contains(line, "id="+c.ID()+" ")
	})
	if !told {
		t.Error("the log does not tell of the fallback")
	}
}

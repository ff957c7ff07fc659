package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/errdefs"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/shim/capture"
	"github.com/containerd-snap/snap/test/harness"
)

// configure writes the node's snap.toml; root stays as it is.
func configure(t *testing.T, n *harness.Node, text string) {
	t.Helper()
	if err := os.WriteFile(n.SnapConfig(), []byte("root = '"+n.StoreRoot+"'\n"+text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// generic are runtime options as CRI makes them of a handler's table.
func generic(table string) *runtimeoptions.Options {
	return &runtimeoptions.Options{ConfigBody: []byte(table)}
}

// TestConfig starts the same container under host defaults, runtime options and
// annotations, each of which overrides the one before.
func TestConfig(t *testing.T) {
	t.Parallel()
	n := newNode(t, harness.Options{})
	a := start(t, n, probeOf())
	e := a.MustCapture(capture.Request{})

	with := func(options any) want {
		w := probeOf()
		w.Options = options
		return w
	}
	configure(t, n, "[defaults]\nrestore = 'Never'\n")
	start(t, n, with(nil)).MustBooted("restore=Never")
	start(t, n, probeOf().Annotate("restore", "IfPresent")).MustRestored(e)
	start(t, n, with(generic("[defaults]\nrestore = 'Required'"))).MustRestored(e)
	start(t, n, with(generic("[defaults]\nrestore = 'Required'")).Annotate("restore", "Never")).MustBooted("restore=Never")

	file := filepath.Join(t.TempDir(), "options.toml")
	if err := os.WriteFile(file, []byte("Root = '"+n.Dir+"/runc'\n[defaults]\nrestore = 'Required'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Ctr(testContext(t), "run", "-d", "--runtime", harness.Runtime, "--runtime-config-path", file,
		"--env", "SNAP_TEST="+t.Name(), probeImage, "by-path", "/bin/probe"); err != nil {
		t.Fatal(err)
	}
	adopt(t, n, "by-path").MustRestored(e)
	if _, err := os.Stat(filepath.Join(n.Dir, "runc", n.Namespace, "by-path")); err != nil {
		t.Errorf("the option Root: %v", err)
	}

	refused := newContainer(t, n, with(generic("SystemCgroup = true")))
	if err := refused.Create(with(nil)); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "SystemCgroup") || !strings.Contains(err.Error(), "SystemdCgroup") {
		t.Errorf("an unknown option: %v", err)
	}
}

// A configuration that cannot be read keeps no container from starting, unless it
// must be restored.
func TestBadConfig(t *testing.T) {
	t.Parallel()
	n := newNode(t, harness.Options{})
	a := start(t, n, probeOf())
	e := a.MustCapture(capture.Request{})
	configure(t, n, "[limits]\nmax_byte = 1\n")
	b := start(t, n, probeOf())
	if _, code := b.Exec("true"); code != 0 {
		t.Errorf("it does not run: %d", code)
	}
	b.MustBooted("max_byte")
	demanded := newContainer(t, n, probeOf().Annotate("restore", "Required"))
	if err := demanded.Create(probeOf()); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "max_byte") {
		t.Errorf("with restore=Required: %v", err)
	}
	configure(t, n, "")
	start(t, n, probeOf()).MustRestored(e)
}

// What the host does not let its containers ask for is not done, and said; the containers
// start all the same.
func TestCaptureBounds(t *testing.T) {
	t.Parallel()
	n := newNode(t, harness.Options{})
	says := func(c *container, words string) {
		t.Helper()
		r := c.Record()
		if r.Outcome != checkpoint.Boot || r.Capture == nil || !strings.Contains(r.Capture.Outcome, words) {
			t.Errorf("%s: outcome %s, capture %+v, want one that says %q", c.ID(), r.Outcome, r.Capture, words)
		}
	}
	configure(t, n, "[capture]\nallow = ['Every']\nmin_interval = '1h'\n")
	says(start(t, n, probeOf().Annotate("capture", "OnReady")), "[capture] allow")
	eventually(t, func() error {
		// What it waits for comes after what it may not do.
		c := start(t, n, probeOf().Annotate("capture", "Every=10s"))
		r := c.Record()
		if r.Capture == nil || r.Capture.Mode != "Every=1h0m0s" && !strings.Contains(r.Capture.Outcome, "every 1h0m0s") {
			return fmt.Errorf("capture %+v", r.Capture)
		}
		return nil
	})
	configure(t, n, "[capture]\nallow = []\n")
	says(start(t, n, probeOf().Annotate("capture", "Every=10m")), "[capture] allow")
	mustHave(t, n)

	// A handler's options may give the right back.
	w := probeOf().Annotate("capture", "OnReady")
	w.Options = generic("capture.allow = ['OnReady']")
	start(t, n, w).Probe()
	eventually(t, func() error {
		all, err := openStore(t, n).List()
		if err == nil && len(all) != 1 {
			err = fmt.Errorf("%d checkpoints", len(all))
		}
		return err
	})
	b := start(t, n, probeOf())
	if r := b.Record(); r.Outcome != checkpoint.Restore {
		t.Errorf("the start after: %+v", r.Decision)
	}
}

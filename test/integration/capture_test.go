package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/shim/capture"
	"github.com/containerd-snap/snap/test/harness"
)

// TestCaptureEntry looks at what a capture registers.
func TestCaptureEntry(t *testing.T) {
	t.Parallel()
	c := start(t, shared, probeOf())
	before := c.Probe()
	begin := time.Now()
	e := c.MustCapture(capture.Request{Name: "entry"})
	c.GoesOn(before)
	k := e.Checkpoint
	image, err := shared.Client().GetImage(testContext(t), probeImage)
	if err != nil {
		t.Fatal(err)
	}
	if e.Name != "entry" || k.SchemaVersion != checkpoint.SchemaVersion {
		t.Errorf("name %q, schema %d", e.Name, k.SchemaVersion)
	}
	if want := (checkpoint.Source{
		Namespace: shared.Namespace, Container: c.ID(), Image: probeImage, ImageDigest: image.Target().Digest.String(),
		Command: "/bin/probe", Processes: 1,
	}); k.Source != want {
		t.Errorf("source %+v, want %+v", k.Source, want)
	}
	if k.CreatedAt.Before(begin) || k.CreatedAt.After(time.Now()) {
		t.Errorf("created at %s", k.CreatedAt)
	}
	if k.Host.Arch != runtime.GOARCH || k.Host.CRIU < 40000 || k.Host.Kernel == "" || len(k.Host.CPUFeatures) == 0 || k.Host.Cgroup == "" {
		t.Errorf("host facts %+v", k.Host)
	}
	for _, field := range []string{"image", "args", "env.SNAP_TEST", "namespace.network"} {
		if k.Fingerprint[field] == "" {
			t.Errorf("the fingerprint lacks %s: %v", field, k.Fingerprint)
		}
	}
	if k.Timing.DumpMS <= 0 || k.Timing.PauseMS < k.Timing.DumpMS+k.Timing.DiffMS {
		t.Errorf("timing %+v", k.Timing)
	}
	var pages int64
	for _, f := range k.Files {
		st, err := os.Lstat(filepath.Join(e.Dir, "images", f.Path))
		if err != nil || st.Size() != f.Size {
			t.Errorf("file %+v: %v", f, err)
		}
		if f.Pages {
			pages += f.Size
		}
	}
	if pages < 100<<10 {
		t.Errorf("%d bytes of pages", pages)
	}
	if k.Diff.Files == 0 || k.Diff.SHA256 == "" {
		t.Errorf("difference %+v", k.Diff)
	}
	if err := openStore(t, shared).Verify(testContext(t), e, nil); err != nil {
		t.Error(err)
	}
	private(t, e.Dir)
}

// private checks that others than root can read nothing of an entry.
func private(t *testing.T, dir string) {
	t.Helper()
	st, err := os.Stat(filepath.Dir(filepath.Dir(dir)))
	if err != nil {
		t.Fatal(err)
	}
	if st.Mode().Perm()&0o077 != 0 {
		t.Errorf("the store's mode is %s", st.Mode())
	}
}

// TestCaptureStop: the task ends, and only when the checkpoint is registered.
func TestCaptureStop(t *testing.T) {
	t.Parallel()
	c := start(t, shared, probeOf())
	before := c.Probe()
	e := c.MustCapture(capture.Request{Stop: true})
	if got := c.Wait(); got != 137 {
		t.Errorf("exit status %d", got)
	}
	clone := start(t, shared, probeOf())
	clone.MustRestored(e)
	clone.GoesOn(before)
}

// TestCapturePaused: a paused task is captured as it stands and stays paused.
func TestCapturePaused(t *testing.T) {
	t.Parallel()
	c := start(t, shared, probeOf())
	before := c.Probe()
	if err := c.Task.Pause(testContext(t)); err != nil {
		t.Fatal(err)
	}
	e := c.MustCapture(capture.Request{})
	if s := c.Status(); s != "paused" {
		t.Errorf("status %s", s)
	}
	if _, err := c.Ask(); err == nil {
		t.Error("the paused program answers")
	}
	if err := c.Task.Resume(testContext(t)); err != nil {
		t.Fatal(err)
	}
	c.GoesOn(before)
	clone := start(t, shared, probeOf())
	clone.MustRestored(e)
	clone.GoesOn(before)
}

// TestWritableLayer: what the program's surroundings wrote comes back with it:
// new, changed, deleted and replaced files, links, modes and owners.
func TestWritableLayer(t *testing.T) {
	t.Parallel()
	c := start(t, shared, probeOf())
	c.Probe()
	c.MustExec("sh", "-e", "-c", `
		mkdir -p /new/deep; echo new >/new/deep/file; chmod 0641 /new/deep/file; chown 12:34 /new/deep/file
		ln /new/deep/file /new/hard; ln -s deep/file /new/soft; mknod /new/fifo p
		echo changed >>/etc/passwd
		rm /etc/group
		rm -r /home; mkdir /home; echo replaced >/home/only
		rm -r /var; echo "a file now" >/var
		head -c 300000 /dev/urandom >/new/random`)
	const look = `
		cat /new/deep/file /home/only /var; tail -n1 /etc/passwd; readlink /new/soft; md5sum /new/random
		stat -c '%a %u:%g %h' /new/deep/file; stat -c %F /new/fifo; ls -A /home; ls /etc/group 2>&1; [ /new/hard -ef /new/deep/file ] && echo linked; true`
	want := c.MustExec("sh", "-c", look)
	if !strings.Contains(want, "linked") || !strings.Contains(want, "641 12:34 2") {
		t.Fatalf("the test's own script: %s", want)
	}
	e := c.MustCapture(capture.Request{})
	clone := start(t, shared, probeOf())
	clone.MustRestored(e)
	clone.Probe()
	if got := clone.MustExec("sh", "-c", look); got != want {
		t.Errorf("the clone sees\n%s\nwant\n%s", got, want)
	}
	// What a clone writes is its own.
	clone.MustExec("sh", "-c", "echo clone >/new/deep/file; rm /home/only")
	if got := c.MustExec("sh", "-c", look); got != want {
		t.Errorf("after the clone wrote, the captured container sees\n%s\nwant\n%s", got, want)
	}
	if err := openStore(t, shared).Verify(testContext(t), e, nil); err != nil {
		t.Errorf("after the clone wrote: %v", err)
	}
}

func TestCaptureNames(t *testing.T) {
	t.Parallel()
	c := start(t, shared, probeOf())
	before := c.Probe()
	first := c.MustCapture(capture.Request{Name: "twice"})
	if _, err := c.Capture(capture.Request{Name: "twice"}); !errdefs.IsAlreadyExists(err) {
		t.Errorf("capture under a name that is taken: %v", err)
	}
	second := c.MustCapture(capture.Request{Name: "twice", Replace: true})
	if first.Digest == second.Digest || second.Name != "twice" {
		t.Errorf("replaced %s by %s, %q", first.Digest, second.Digest, second.Name)
	}
	if got, err := openStore(t, shared).Resolve(first.Digest); err != nil || got.Name != "" {
		t.Errorf("the replaced checkpoint: %q, %v", got.Name, err)
	}
	if _, err := c.Capture(capture.Request{Name: "Not Valid"}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("capture under an invalid name: %v", err)
	}
	c.GoesOn(before)
}

// TestCaptureRefused: a capture that fails says why, leaves the task running and
// nothing in the store.
func TestCaptureRefused(t *testing.T) {
	t.Parallel()
	n := newNode(t, harness.Options{})
	for name, c := range map[string]struct {
		want   want
		before func(t *testing.T, c *container)
		says   string
	}{
		"multipath TCP":   {want: want{Image: probeImage, Args: []string{"/bin/probe", "-mptcp"}}, says: "multipath"},
		"host's pids":     {want: probeOf(hostPIDs), says: "pid namespace"},
		"not this task":   {want: probeOf(), says: "not found"},
		"no space":        {want: probeOf(), before: fillStore, says: "full"},
		"CRIU is missing": {want: probeOf(), before: hideCRIU, says: "criu"},
	} {
		t.Run(name, func(t *testing.T) {
			k := start(t, n, c.want)
			before := k.Probe()
			if c.before != nil {
				c.before(t, k)
			}
			req := capture.Request{ID: k.ID()}
			if c.says == "not found" {
				req.ID = "nobody"
			}
			_, err := capture.Call(testContext(t), k.Record().Address, req)
			if err == nil || !strings.Contains(strings.ToLower(err.Error()), c.says) {
				t.Errorf("error %v, want one that says %q", err, c.says)
			}
			k.GoesOn(before)
			storeIsEmpty(t, n)
		})
	}
}

// storeIsEmpty checks that no checkpoint is registered and no part of one is left.
func storeIsEmpty(t *testing.T, n *harness.Node) {
	t.Helper()
	for _, dir := range []string{"entries", "drafts", "trash", "tmp", "index", "names", "state"} {
		names, err := os.ReadDir(filepath.Join(n.StoreRoot, dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			t.Errorf("in the store: %s/%s", dir, name.Name())
		}
	}
}

// TestCaptureWithExec: what was exec'd into the container is not part of the
// program, and does not notice.
func TestCaptureWithExec(t *testing.T) {
	t.Parallel()
	c := start(t, shared, probeOf())
	before := c.Probe()
	e := c.NewExec(false, "cat")
	if err := e.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	k := c.MustCapture(capture.Request{})
	if k.Checkpoint.Source.Processes != 1 {
		t.Errorf("%d processes captured", k.Checkpoint.Source.Processes)
	}
	fmt.Fprintln(e.Stdin, "still here")
	e.Out.WaitFor(t, "still here")
	c.GoesOn(before)
	clone := start(t, shared, probeOf())
	clone.MustRestored(k)
	clone.GoesOn(before)
	execs(clone)
}

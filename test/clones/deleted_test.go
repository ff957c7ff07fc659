package clones

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/shim/capture"
	"github.com/containerd-snap/snap/test/harness/run"
)

// linkRemaps lists the names that CRIU gives files for the time of a dump or restore.
func linkRemaps(s scribe) string {
	s.T.Helper()
	return s.MustExec("find", "/", "/dev/shm", "-xdev", "-name", "link_remap*")
}

// TestDeletedFiles: a program goes on with files that it has open or mapped and that have lost
// the name by which it opened them: all their names, one of several, one that the image has,
// or one that another file has now. A file with a name left is still the one of that name.
func TestDeletedFiles(t *testing.T) {
	t.Parallel()
	s := startScribe(t)
	passwd := s.MustExec("cat", "/etc/passwd")
	s.MustExec("mkdir", "/names", "/names/gone")
	s.must(fmt.Sprintf(`
		open ghost /ghost create
		fill ghost %d
		open twin /ghost write
		remove /ghost
		open holes /holes create
		fill holes 8192
		extend holes %d
		remove /holes
		open linked /names/a create
		write linked first
		link /names/a /names/b
		remove /names/a
		open orphan /names/gone/x create
		write orphan orphan
		link /names/gone/x /names/y
		remove /names/gone/x
		remove /names/gone
		open mapped /names/c create
		fill mapped 8192
		map mapped
		close mapped
		link /names/c /names/d
		remove /names/c
		open image /etc/passwd read
		remove /etc/passwd
		open replaced /etc/group read
		open memory /dev/shm/x create
		write memory shm
		link /dev/shm/x /dev/shm/y
		remove /dev/shm/x`, 3<<20, 1<<30))
	group := s.MustExec("cat", "/etc/group")
	s.MustExec("sh", "-c", "echo another >/etc/group.new; mv /etc/group.new /etc/group")
	sums := map[string]string{}
	for _, name := range []string{"ghost", "holes"} {
		sums[name] = s.ask("sum", name)
	}
	page := s.ask("peek", "mapped")

	for generation := range 2 {
		e := s.MustCapture(capture.Request{})
		if found := linkRemaps(s); found != "" {
			t.Errorf("after the capture there are in the container %s", found)
		}
		var clone scribe
		for range 2 {
			clone = scribe{run.Start(t, shared, scribeOf())}
			clone.MustRestored(e)
			for name, sum := range sums {
				clone.says("sum "+name, sum)
			}
			clone.says("read linked", fmt.Sprintf("%q", "first"+strings.Repeat("+", generation)))
			clone.says("read orphan", `"orphan"`)
			clone.says("read image", fmt.Sprintf("%q", passwd))
			clone.says("read replaced", fmt.Sprintf("%q", group))
			clone.says("read memory", `"shm"`)
			clone.says("peek mapped", page)
			if found := linkRemaps(clone); found != "" {
				t.Errorf("after the restore there are in the clone %s", found)
			}
			if got := clone.MustExec("cat", "/etc/group"); got != "another\n" {
				t.Errorf("/etc/group of the clone is %q", got)
			}
			// The names that are left, and the other descriptor, are of the same files.
			clone.must("write linked +\nwrite twin twin\npoke mapped poked")
			clone.MustExec("sh", "-e", "-c", fmt.Sprintf(`grep -q '^first%s$' /names/b; grep -q '^orphan$' /names/y; [ "$(head -c 5 /names/d)" = poked ]; grep -q '^shm$' /dev/shm/y; for f in /ghost /names/a /names/gone /names/c /etc/passwd; do [ ! -e $f ]; done`,
				strings.Repeat("+", generation+1)))
			if got := clone.ask("sum", "ghost"); got == sums["ghost"] {
				t.Error("what was written to one descriptor of the deleted file is not read from the other")
			}
		}
		s.says("read linked", fmt.Sprintf("%q", "first"+strings.Repeat("+", generation)))
		s.says("sum ghost", sums["ghost"])
		// The next generation is captured of a clone that has written.
		s = clone
		sums["ghost"], page = s.ask("sum", "ghost"), s.ask("peek", "mapped")
	}
}

// TestDeletedOfVolume: a file of a volume that has lost one of its names cannot be captured,
// because the volume is no part of a checkpoint; the program goes on, and what was there is there.
func TestDeletedOfVolume(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := startScribe(t, bind(dir, "/data"))
	s.must("open x /data/x create\nwrite x kept\nlink /data/x /data/y\nremove /data/x")
	_, err := s.Capture(capture.Request{})
	if want := "the open file /data/x was deleted and has other names, on the mount /data"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
	s.says("read x", `"kept"`)
	if got := s.MustExec("ls", "/data"); got != "y\n" {
		t.Errorf("in the volume there are %q", got)
	}
	// When it is closed, nothing stands in the way.
	s.must("close x")
	e := s.MustCapture(capture.Request{})
	run.Start(t, shared, scribeOf(bind(dir, "/data"))).MustRestored(e)
}

// TestDeletedResumed: a resume point has such files, too. The program goes on with them in
// the same container, whose layer is set back: the names that were left are of the same files.
func TestDeletedResumed(t *testing.T) {
	t.Parallel()
	w := scribeOf().Annotate("capture", "Every=1s")
	s := scribe{run.Start(t, shared, w)}
	s.Out.WaitFor(t, "ready\n")
	s.must(`
		open linked /a create
		link /a /b
		remove /a
		open mapped /c create
		fill mapped 8192
		map mapped
		close mapped
		link /c /d
		remove /c
		open ghost /e create
		write ghost ghost
		remove /e`)
	want, store := "", run.OpenStore(t, shared)
	for _, word := range []string{"first", "second", "third"} {
		want += word
		s.must("write linked " + word + "\npoke mapped " + word)
		written := time.Now()
		run.Eventually(t, func() error {
			r, err := s.RecordOf()
			if err != nil || r.Capture == nil || r.Capture.Digest == "" {
				return fmt.Errorf("no resume point: %+v, %w", r.Capture, err)
			}
			point, err := store.Resolve(r.Capture.Digest)
			if err == nil && point.Checkpoint.CreatedAt.Before(written) {
				err = fmt.Errorf("no resume point since %s: %s", written, point.Checkpoint.CreatedAt)
			}
			return err
		})
		s.Kill(unix.SIGKILL)
		s.Wait()
		s.DeleteTask()
		if err := s.Create(w); err != nil {
			t.Fatal(err)
		}
		if err := s.Task.Start(run.Context(t)); err != nil {
			t.Fatal(err)
		}
		if r := s.Record(); r.Outcome != checkpoint.Restore {
			t.Fatalf("outcome %s: %+v, fallback %q", r.Outcome, r.Decision, r.Fallback)
		}
		s.says("read linked", fmt.Sprintf("%q", want))
		s.says("read ghost", `"ghost"`)
		s.must("poke mapped again")
		s.MustExec("sh", "-e", "-c", fmt.Sprintf(`[ "$(cat /b)" = %s ]; [ "$(head -c 5 /d)" = again ]; for f in /a /c /e; do [ ! -e $f ]; done`, want))
		if found := linkRemaps(s); found != "" {
			t.Errorf("after the restore there are in the container %s", found)
		}
	}
}

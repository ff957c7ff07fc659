package clones

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/shim/capture"
	"github.com/containerd-snap/snap/test/harness/run"
)

// furnish leaves in a layer one of each kind of what a file system can hold.
const furnish = `
	mkdir -p /new/deep /new/private; echo new >/new/deep/file; chown 12:34 /new/deep/file; chmod 4641 /new/deep/file; chown 7:8 /new/private; chmod 2700 /new/private
	ln /new/deep/file /new/hard; ln -s deep/file /new/soft; ln -s /nowhere /new/dangling
	mkfifo /new/fifo; chmod 0622 /new/fifo; mknod /new/null c 1 3; mknod /new/disk b 8 1
	echo changed >>/etc/passwd; rm /etc/group
	rm -r /home; mkdir /home; echo replaced >/home/only
	mkdir -p /new/old-name/below; echo moved >/new/old-name/below/file; mv /new/old-name /new/new-name
	mv /var /var-moved
	touch -d '2001-02-03 04:05:06' /new/deep/file; : >"/new/odd name ü\\"; : >/new/empty
	chmod 1777 /new`

// inventory prints what there is, with all that belongs to it.
const inventory = `
	find /new /home /etc /var* -xdev | sort | while read -r f; do
		if [ -d "$f" ]; then stat -c '%n %F %a %u:%g' "$f"; else stat -c '%n %F %a %u:%g %s %h %Y %t:%T %N' "$f"; fi
	done 2>&1
	cat /new/deep/file /home/only /new/new-name/below/file /etc/passwd; [ /new/hard -ef /new/deep/file ] && echo linked; ls /etc/group 2>&1; ls -A /home; [ -S /new/socket ] && echo socket`

// TestLayer: three clones see every file as it was at the capture: contents, holes, links,
// owners, modes, times, attributes, devices, sockets, what is gone and what was moved.
// What each writes then is its own, and neither the others nor the captured container
// nor the checkpoint notice.
func TestLayer(t *testing.T) {
	t.Parallel()
	original := startScribe(t)
	original.MustExec("sh", "-e", "-c", furnish)
	original.must(`
		setxattr /new/deep/file user.note kept
		setxattr /new/private user.note also
		listen /new/socket
		open held /new/held create
		write held captured`)
	want := original.MustExec("sh", "-c", inventory)
	for _, part := range []string{"/new/deep/file regular file 4641 12:34 4 2 981173106", "character special file", "block special file", "fifo", "socket\n", "/new/private directory 2700 7:8", "linked\n", "/etc/group: No such file", "/var-moved directory"} {
		if !strings.Contains(want, part) {
			t.Fatalf("the test's own script lacks %q: %s", part, want)
		}
	}
	e := original.MustCapture(capture.Request{})
	check := func(s scribe, of string) {
		t.Helper()
		if got := s.MustExec("sh", "-c", inventory); got != want {
			t.Errorf("%s has\n%s\nwant\n%s", of, got, want)
		}
		s.says("getxattr /new/deep/file user.note", "kept")
		s.says("getxattr /new/private user.note", "also")
		s.says("read held", `"captured"`)
	}
	var clones []scribe
	for range 3 {
		clones = append(clones, scribe{run.Start(t, shared, scribeOf())})
	}
	for n, c := range clones {
		c.MustRestored(e)
		check(c, fmt.Sprint("clone ", n))
	}
	for n, c := range clones {
		c.must(fmt.Sprintf("write held +%d\nopen own /own create\nwrite own %d", n, n))
		c.MustExec("sh", "-e", "-c", fmt.Sprintf("echo clone %d >/new/deep/file; rm /home/only; echo %d >/etc/group", n, n))
	}
	for n, c := range clones {
		c.says("read held", strconv.Quote(fmt.Sprintf("captured+%d", n)))
		c.says("read own", strconv.Quote(strconv.Itoa(n)))
		if got, want := c.MustExec("cat", "/new/hard", "/etc/group"), fmt.Sprintf("clone %d\n%d\n", n, n); got != want {
			t.Errorf("clone %d reads %q, want %q", n, got, want)
		}
	}
	check(original, "the captured container, after the clones wrote,")
	if out, code := original.Exec("ls", "/own"); code == 0 {
		t.Errorf("the captured container has a clone's file: %s", out)
	}
	if err := run.OpenStore(t, shared).Verify(run.Context(t), e, nil); err != nil {
		t.Errorf("after the clones wrote: %v", err)
	}
}

// TestFifoOfLayer: what waits in a FIFO that the program has open is read once by each.
func TestFifoOfLayer(t *testing.T) {
	t.Parallel()
	w := run.Shell(`mkfifo /f; exec 3<>/f; echo waits >&3; echo ready; until [ -e /go ]; do sleep 0.1; done; read x <&3; echo "got $x"; echo more >/f; read x <&3; echo "got $x"; sleep 1000`)
	original := run.Start(t, shared, w)
	original.Out.WaitFor(t, "ready")
	e := original.MustCapture(capture.Request{})
	clone := run.Start(t, shared, w)
	clone.MustRestored(e)
	for _, c := range []*run.Container{clone, original} {
		c.MustExec("touch", "/go")
		c.Out.WaitFor(t, "got waits\ngot more\n")
	}
}

// TestLargeFiles: a file of 200 MB and one of a gigabyte that is a hole almost everywhere come
// back, and the hole costs nothing, in the store neither.
func TestLargeFiles(t *testing.T) {
	t.Parallel()
	const large, stored = 200 << 20, 1 << 16
	original := startScribe(t)
	original.must(fmt.Sprintf(`
		open large /large create
		fill large %d
		open sparse /sparse create
		fill sparse %d
		extend sparse %d`, large, stored, 1<<30))
	sums := map[string]string{"large": original.ask("sum", "large"), "sparse": original.ask("sum", "sparse")}
	if !strings.HasPrefix(sums["sparse"], strconv.Itoa(1<<30)+" ") {
		t.Fatalf("the sparse file: %s", sums["sparse"])
	}
	e := original.MustCapture(capture.Request{})
	if n := e.Checkpoint.Diff.Bytes; n < large+stored || n > large+2*stored {
		t.Errorf("the layer is said to have %d bytes", n)
	}
	if n := onDisk(t, filepath.Join(e.Dir, "diff")); n < large || n > large+8<<20 {
		t.Errorf("the layer takes %d bytes of the store's disk", n)
	}
	if err := run.OpenStore(t, shared).Verify(run.Context(t), e, nil); err != nil {
		t.Error(err)
	}
	clone := scribe{run.Start(t, shared, scribeOf())}
	clone.MustRestored(e)
	for name, sum := range sums {
		clone.says("sum "+name, sum)
	}
	var size, links, disk int64
	answer := clone.ask("stat", "sparse")
	if _, err := fmt.Sscanf(answer, "size %d links %d stored %d", &size, &links, &disk); err != nil || size != 1<<30 || disk > 2*stored {
		t.Errorf("the clone's sparse file: %s, %v", answer, err)
	}
}

// onDisk is what the files below dir take.
func onDisk(t *testing.T, dir string) (bytes int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		var st unix.Stat_t
		err = errors.Join(err, unix.Lstat(path, &st))
		bytes += st.Blocks * 512
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return bytes
}

package libct

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// bundle is a container to be made, with a static busybox for its root file system.
type bundle struct {
	t       *testing.T
	runtime Runtime
	spec    Spec
}

func newBundle(t *testing.T, script string) *bundle {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatalf("these tests need a static busybox (Debian: busybox-static): %v", err)
	}
	dir := t.TempDir()
	bin := filepath.Join(dir, "rootfs", "bin")
	must(t, os.MkdirAll(bin, 0o755))
	data, err := os.ReadFile(busybox)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(bin, "busybox"), data, 0o755))
	for _, applet := range []string{"sh", "cat", "sleep", "hostname", "ip", "true", "false", "kill", "echo"} {
		must(t, os.Symlink("busybox", filepath.Join(bin, applet)))
	}
	id := fmt.Sprintf("snap-test-%d-%d", os.Getpid(), time.Now().UnixNano())
	oci := specconv.Example()
	oci.Root = &specs.Root{Path: filepath.Join(dir, "rootfs")}
	oci.Hostname = "snapped"
	oci.Process.Terminal = false
	oci.Process.Args = []string{"/bin/sh", "-c", script}
	oci.Linux.CgroupsPath = "/" + id
	// Not the host's business: a test's container sees no cgroups.
	var mounts []specs.Mount
	for _, m := range oci.Mounts {
		if m.Type != "cgroup" {
			mounts = append(mounts, m)
		}
	}
	oci.Mounts = mounts
	return &bundle{
		t:       t,
		runtime: Runtime{Root: filepath.Join(dir, "state")},
		spec:    Spec{ID: id, Bundle: dir, OCI: oci},
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pipes are a process's streams: CRIU attaches nothing but pipes anew.
type pipes struct {
	files  Files
	stdin  *os.File
	stdout *bufio.Reader
}

func newPipes(t *testing.T) *pipes {
	t.Helper()
	var p pipes
	var err error
	p.files.Stdin, p.stdin, err = os.Pipe()
	must(t, err)
	out, w, err := os.Pipe()
	must(t, err)
	must(t, out.SetReadDeadline(time.Now().Add(20*time.Second)))
	p.files.Stdout, p.stdout = w, bufio.NewReader(out)
	errR, errW, err := os.Pipe()
	must(t, err)
	p.files.Stderr = errW
	t.Cleanup(func() {
		for _, f := range []*os.File{p.files.Stdin, p.stdin, out, w, errR, errW} {
			f.Close()
		}
	})
	return &p
}

// line reads one line of the process's output.
func (p *pipes) line(t *testing.T) string {
	t.Helper()
	s, err := p.stdout.ReadString('\n')
	must(t, err)
	return strings.TrimSuffix(s, "\n")
}

func (p *pipes) send(t *testing.T, s string) {
	t.Helper()
	_, err := p.stdin.WriteString(s + "\n")
	must(t, err)
}

// boot makes the container and lets it run.
func (b *bundle) boot(p *pipes) (*Container, *Process) {
	b.t.Helper()
	c, proc, err := b.runtime.Boot(b.t.Context(), b.spec, p.files)
	must(b.t, err)
	b.t.Cleanup(func() { b.remove() })
	must(b.t, c.Release())
	return c, proc
}

// begin boots a container of its own that has said its first line.
func begin(t *testing.T, script string) (*bundle, *pipes, *Container, *Process) {
	t.Helper()
	b, p := newBundle(t, script), newPipes(t)
	c, init := b.boot(p)
	p.line(t)
	return b, p, c, init
}

// remove is the last resort of a test that failed half way.
func (b *bundle) remove() {
	if err := b.runtime.Remove(b.spec); err != nil {
		b.t.Errorf("remove the container: %v", err)
	}
}

// waitFor returns a process's exit code.
func waitFor(t *testing.T, p *Process) int {
	t.Helper()
	type result struct {
		code int
		err  error
	}
	c := make(chan result, 1)
	go func() {
		code, err := p.Wait()
		c <- result{code, err}
	}()
	select {
	case r := <-c:
		must(t, r.err)
		return r.code
	case <-time.After(20 * time.Second):
		t.Fatalf("process %d does not end", p.PID())
		return 0
	}
}

// wantNothing makes sure that a container has left nothing behind.
func (b *bundle) wantNothing() {
	b.t.Helper()
	if entries, err := os.ReadDir(b.runtime.Root); err == nil && len(entries) > 0 {
		b.t.Errorf("state is left: %v", entries)
	}
	if dirs := b.cgroups(); len(dirs) > 0 {
		b.t.Errorf("cgroups are left: %v", dirs)
	}
	data, err := os.ReadFile("/proc/self/mountinfo")
	must(b.t, err)
	if strings.Contains(string(data), b.spec.Bundle) {
		b.t.Errorf("mounts are left:\n%s", data)
	}
	for _, pid := range children() {
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		b.t.Errorf("a child is left: %d %.200s", pid, status)
	}
}

// cgroups lists the container's cgroups.
func (b *bundle) cgroups() []string {
	b.t.Helper()
	var found []string
	for _, pattern := range []string{"/sys/fs/cgroup/*/", "/sys/fs/cgroup/"} {
		dirs, err := filepath.Glob(pattern + b.spec.ID)
		must(b.t, err)
		found = append(found, dirs...)
	}
	return found
}

// images takes a checkpoint of a running container, as a capture for the store does.
func (b *bundle) images(c *Container, d Dump) Dump {
	b.t.Helper()
	d.Dir = b.t.TempDir()
	d.Work = b.t.TempDir()
	b.configureCRIU()
	if err := c.Dump(b.t.Context(), d); err != nil {
		b.t.Fatalf("%v\n%s", err, tail(filepath.Join(d.Work, "dump.log")))
	}
	return d
}

// configureCRIU writes the file that libcontainer is told to name to CRIU.
func (b *bundle) configureCRIU() {
	b.t.Helper()
	must(b.t, os.WriteFile(filepath.Join(b.spec.Bundle, CRIUConfigFile), []byte("tcp-close\nnetwork-lock skip\n"), 0o600))
}

// again is a bundle to restore b into: with the same root file system, as b.s
// processes have its files open.
func (b *bundle) again(t *testing.T) *bundle {
	t.Helper()
	n := newBundle(t, "exit 99")
	n.spec.OCI.Process.Args = b.spec.OCI.Process.Args
	n.configureCRIU()
	return n
}

// hold begins a restore into namespaces made before it.
func (b *bundle) hold(d Dump, p *pipes) (*Restore, *Namespaces) {
	b.t.Helper()
	ns, err := NewNamespaces(b.spec.OCI)
	must(b.t, err)
	b.t.Cleanup(func() {
		if err := ns.Close(); err != nil {
			b.t.Error(err)
		}
	})
	ns.Join(&b.spec)
	ctx, cancel := context.WithTimeout(b.t.Context(), 20*time.Second)
	defer cancel()
	rs, err := b.runtime.Restore(ctx, b.spec, Images{Dir: d.Dir, Work: d.Work}, p.files)
	if err != nil {
		b.t.Fatalf("%v\n%s", err, tail(filepath.Join(d.Work, "restore.log")))
	}
	b.t.Cleanup(func() {
		if _, err := rs.Abort(); err != nil {
			b.t.Errorf("abort: %v", err)
		}
		b.remove()
	})
	return rs, ns
}

func (b *bundle) finish(rs *Restore, d Dump) (*Container, *Process) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 20*time.Second)
	defer cancel()
	c, p, err := rs.Finish(ctx)
	if err != nil {
		b.t.Fatalf("%v\n%s", err, tail(filepath.Join(d.Work, "restore.log")))
	}
	return c, p
}

// output runs a command in the container.
func output(t *testing.T, c *Container, args ...string) string {
	t.Helper()
	p := newPipes(t)
	proc, err := c.Exec(t.Context(), execSpec(args...), p.files)
	must(t, err)
	p.files.Stdout.Close()
	var b strings.Builder
	_, err = p.stdout.WriteTo(&b)
	must(t, err)
	if code := waitFor(t, proc); code != 0 {
		t.Errorf("%v ended with %d", args, code)
	}
	return strings.TrimSpace(b.String())
}

func execSpec(args ...string) *specs.Process {
	return &specs.Process{Args: args, Cwd: "/", Env: []string{"PATH=/bin"}}
}

// end kills the container and removes it.
func (b *bundle) end(c *Container, p *Process) {
	b.t.Helper()
	must(b.t, c.KillAll())
	if code := waitFor(b.t, p); code != exitSignalOffset+int(unix.SIGKILL) {
		b.t.Errorf("exit code %d", code)
	}
	must(b.t, c.Destroy())
}

func tail(file string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-3000):])
}

package clones

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/shim/capture"
	"github.com/containerd-snap/snap/test/harness/run"
)

// bind mounts a path of the host.
func bind(source, destination string) oci.SpecOpts {
	return oci.WithMounts([]specs.Mount{{Type: "bind", Source: source, Destination: destination, Options: []string{"rbind", "rw"}}})
}

// writeFile makes a file with its directories.
func writeFile(t *testing.T, path, content string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// ownFiles are the three files that a runtime makes for each container.
func ownFiles(t *testing.T, name string) oci.SpecOpts {
	dir := t.TempDir()
	return oci.Compose(
		oci.WithHostname(name),
		bind(writeFile(t, dir+"/hostname", name+"\n"), "/etc/hostname"),
		bind(writeFile(t, dir+"/hosts", "127.0.0.1 localhost "+name+"\n"), "/etc/hosts"),
		bind(writeFile(t, dir+"/resolv.conf", "search "+name+".local\n"), "/etc/resolv.conf"),
	)
}

// TestOwnFiles: /etc/hostname, /etc/hosts and /etc/resolv.conf, and what setting identity
// mounts, are the new container's by name and through the descriptors that the program had open, of
// whatever length.
func TestOwnFiles(t *testing.T) {
	t.Parallel()
	named := func(name string) scribe {
		return scribe{run.Start(t, shared, scribeOf(ownFiles(t, name)).Annotate("identity", "/run/snap"))}
	}
	original := named("original")
	original.Out.WaitFor(t, "ready\n")
	original.must(`
		open name /etc/hostname read
		open hosts /etc/hosts read
		open resolv /etc/resolv.conf read
		open identity /run/snap/hostname read
		open generation /run/snap/generation read`)
	check := func(s scribe, name string) {
		t.Helper()
		s.says("read name", strconv.Quote(name+"\n"))
		s.says("read hosts", strconv.Quote("127.0.0.1 localhost "+name+"\n"))
		s.says("read resolv", strconv.Quote("search "+name+".local\n"))
		if got := s.MustExec("cat", "/etc/hostname"); got != name+"\n" {
			t.Errorf("%s: /etc/hostname is %q", s.ID(), got)
		}
		if got := s.ask("read", "identity"); !strings.HasPrefix(got, `"`+name) {
			t.Errorf("%s: /run/snap/hostname is %s", s.ID(), got)
		}
	}
	check(original, "original")
	e := original.MustCapture(capture.Request{})
	generations := map[string]bool{original.ask("read", "generation"): true}
	for n, name := range []string{"a", "as-long!", "one-with-a-longer-name"} {
		clone := named(name)
		clone.MustRestored(e)
		check(clone, name)
		generations[clone.ask("read", "generation")] = true
		if len(generations) != n+2 {
			t.Errorf("the generations %v are not all different", generations)
		}
	}
	check(original, "original")
}

// TestVolume: what a program has open of a volume is the new container's after a restore,
// and a file that is not there as it was is told before one is tried.
func TestVolume(t *testing.T) {
	t.Parallel()
	volume := func(t *testing.T, files map[string]string) (string, oci.SpecOpts) {
		dir := t.TempDir()
		for name, content := range files {
			writeFile(t, filepath.Join(dir, name), content)
		}
		return dir, bind(dir, "/data")
	}
	whole := map[string]string{"db": "12345", "log": "", "dir/x": ""}
	dir, opt := volume(t, whole)
	original := startScribe(t, opt)
	original.must(`
		open db /data/db write
		open log /data/log append
		chdir /data/dir
		write log captured`)
	e := original.MustCapture(capture.Request{})

	out, err := shared.Snapctl(run.Context(t), "inspect", e.Digest)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`/data/db +mode 0644, 5 bytes`, `/data/log +mode 0644, any size`, `/data/dir +mode 0755, any size`} {
		if !regexp.MustCompile(want).MatchString(out.Stdout) {
			t.Errorf("snapctl inspect does not say %q: %s", want, out.Stdout)
		}
	}

	t.Run("there", func(t *testing.T) {
		// Of what is open for appending only, the length makes no difference.
		own, opt := volume(t, map[string]string{"db": "abcde", "log": "a line,", "dir/x": ""})
		clone := scribe{run.Start(t, shared, inParent(t, scribeOf(opt)))}
		clone.MustRestored(e)
		clone.says("read db", `"abcde"`)
		clone.must("write db 54\nwrite log cloned\nopen here x write\nwrite here moved")
		for name, want := range map[string]string{"db": "54cde", "log": "a line,cloned", "dir/x": "moved"} {
			if got, err := os.ReadFile(filepath.Join(own, name)); err != nil || string(got) != want {
				t.Errorf("%s of the clone's volume: %q, %v, want %q", name, got, err, want)
			}
		}
		for name, want := range map[string]string{"db": "12345", "log": "captured", "dir/x": ""} {
			if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
				t.Errorf("%s of the captured container's volume: %q, %v, want %q", name, got, err, want)
			}
		}
	})
	for name, c := range map[string]struct {
		files map[string]string
		says  string
	}{
		"not for all":       {map[string]string{"db": "12345", "log": "", "dir/x": ""}, "/data/db of the mount /data (here VOLUME) in use, and its mode is 0600 now, not 0644"},
		"missing":           {map[string]string{"log": "", "dir/x": ""}, "/data/db of the mount /data (here VOLUME) in use, and it is not there"},
		"longer":            {map[string]string{"db": "123456", "log": "", "dir/x": ""}, "/data/db of the mount /data (here VOLUME) in use, and it has 6 bytes now, not 5"},
		"no log":            {map[string]string{"db": "12345", "dir/x": ""}, "/data/log of the mount /data (here VOLUME) in use, and it is not there"},
		"another directory": {map[string]string{"db": "12345", "log": "", "dir": ""}, "/data/dir of the mount /data (here VOLUME) in use, and it is of another kind now"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, opt := volume(t, c.files)
			if name == "not for all" {
				if err := os.Chmod(filepath.Join(dir, "db"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want := strings.ReplaceAll(c.says, "VOLUME", dir)
			k := run.Start(t, shared, inParent(t, scribeOf(opt)))
			k.MustBooted(want)
			if r := k.Record(); r.Fallback != "" || !strings.Contains(r.Decision.Reason, "put it there") {
				t.Errorf("a restore was tried: %q; reason %q", r.Fallback, r.Decision.Reason)
			}
			// Who demands a restore is refused, with the same words.
			k = run.New(t, shared, inParent(t, scribeOf(opt)).Annotate("restore", "Required"))
			if err := k.Create(run.Want{}); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("restore=Required: %v, want %q", err, want)
			}
		})
	}
	if got, err := run.OpenStore(t, shared).Resolve(e.Digest); err != nil || got.State.Failures != 0 {
		t.Errorf("the checkpoint is said to have failed: %+v, %v", got.State, err)
	}
}

// TestMappedOwnFile: where a program has one of its container's own files in its memory, another
// length would kill it.
func TestMappedOwnFile(t *testing.T) {
	t.Parallel()
	original := startScribe(t, ownFiles(t, "original"))
	original.must("open hosts /etc/hosts write\nmap hosts\nclose hosts")
	e := original.MustCapture(capture.Request{})
	run.Start(t, shared, scribeOf(ownFiles(t, "longer-name"))).MustBooted("/etc/hosts of the mount /etc/hosts")
	clone := scribe{run.Start(t, shared, scribeOf(ownFiles(t, "likewise")))}
	clone.MustRestored(e)
	clone.says("peek hosts", strconv.Quote("127.0.0.1 localh"))
	if hosts := clone.MustExec("cat", "/etc/hosts"); !strings.Contains(hosts, "likewise") {
		t.Errorf("/etc/hosts is %q", hosts)
	}
}

// inParent lets the container of a subtest have the environment, and so the fingerprint, of
// those of the test that it is part of.
func inParent(t *testing.T, w run.Want) run.Want {
	parent, _, _ := strings.Cut(t.Name(), "/")
	w.Opts = append([]oci.SpecOpts{oci.WithEnv([]string{"SNAP_TEST=" + parent})}, w.Opts...)
	return w
}

// TestVolumeChangesMeanwhile: a file that goes between the decision and the restore is
// what the fallback names, not only what CRIU says of it.
func TestVolumeChangesMeanwhile(t *testing.T) {
	t.Parallel()
	dir, trigger := t.TempDir(), filepath.Join(t.TempDir(), "now")
	writeFile(t, dir+"/db", "12345")
	hook := func(_ context.Context, _ oci.Client, _ *containers.Container, s *specs.Spec) error {
		s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", fmt.Sprintf("[ ! -e %s ] || /bin/rm -f %s/db", trigger, dir)}}}}
		return nil
	}
	original := startScribe(t, bind(dir, "/data"), hook)
	original.must("open db /data/db write")
	original.MustCapture(capture.Request{})
	writeFile(t, trigger, "")
	clone := run.Start(t, shared, scribeOf(bind(dir, "/data"), hook))
	if r := clone.Record(); r.Outcome != checkpoint.Boot || !strings.HasPrefix(r.Fallback, "the program had /data/db of the mount /data (here "+dir+") in use, and it is not there") {
		t.Errorf("outcome %s after %q", r.Outcome, r.Fallback)
	}
	clone.Out.WaitFor(t, "ready\n")
}

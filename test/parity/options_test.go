package parity

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	apitypes "github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/containerd-snap/snap/test/harness"
)

// TestOptions: what runc's options do.
func TestOptions(t *testing.T) {
	compare(t, "owner of the streams", func(s *side) {
		w := shell("for n in 0 1 2; do stat -L -c %u:%g /proc/$$/fd/$n; done")
		w.task = []client.NewTaskOpts{client.WithUIDOwner(1234), client.WithGIDOwner(2345)}
		s.see("owners", "%s", s.started(w).output())
	})
	compare(t, "no new keyring", func(s *side) {
		for _, opts := range [][]client.NewTaskOpts{nil, {client.WithNoNewKeyring}} {
			w := shell("cat /proc/keys", oci.WithMaskedPaths(nil))
			w.task = opts
			c := s.started(w)
			s.see(fmt.Sprintf("own keyring with %d options", len(opts)), "%t", strings.Contains(c.output(), "_ses."+c.ID()+":"))
		}
	})
	compare(t, "no pivot_root", func(s *side) {
		w := shell("cut -d' ' -f5- /proc/self/mountinfo; cd ..; ls -d /tmp")
		w.task = []client.NewTaskOpts{client.WithNoPivotRoot}
		c := s.started(w)
		s.see("mounts", "%s", c.normal(c.output()))
	})
	compare(t, "root", func(s *side) {
		root := s.TempDir()
		w := shell("sleep 1000")
		w.runtime = &options.Options{Root: root}
		c := s.started(w)
		_, err := os.Stat(filepath.Join(root, node.Namespace, c.ID(), "state.json"))
		s.see("the state is there", "%t", err == nil)
	})
	compare(t, "the shim's cgroup", func(s *side) {
		w := shell("sleep 1000")
		group := "/" + node.Namespace + "-shims"
		for _, top := range []string{"/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids"} {
			dir := top + group
			s.must(os.MkdirAll(dir, 0o755))
			s.Cleanup(func() {
				s.eventually(func() error { return ignoreMissing(os.Remove(dir)) })
			})
		}
		w.runtime = &options.Options{ShimCgroup: group}
		c := s.started(w)
		r, err := c.shim().Connect(s.shimContext(), &taskapi.ConnectRequest{ID: c.ID()})
		s.must(err)
		p, err := harness.ReadProcess(int(r.ShimPid))
		s.must(err)
		for _, controller := range []string{"memory", "pids", "cpu,cpuacct", "freezer"} {
			in := "elsewhere"
			for _, line := range p.Cgroups {
				if strings.HasSuffix(line, ":"+controller+":"+group) {
					in = "in it"
				}
			}
			s.see(controller, "%s", in)
		}
		s.see("init's", "%s", c.normal(strings.Join(cgroupsOf(s, int(c.task.Pid())), "\n")))
	})
	compare(t, "a shim's cgroup that is not there", func(s *side) {
		w := shell("sleep 1000")
		w.runtime = &options.Options{ShimCgroup: "/does/not/exist"}
		c := s.newContainer(w)
		err := c.create(w)
		s.seeError("create", err, "/does/not/exist")
	})
	compare(t, "systemd's cgroups", func(s *side) {
		// systemd does not run here: the same error from both.
		w := want{args: []string{"true"}, opts: []oci.SpecOpts{oci.WithCgroup("system.slice:snap:x")}, runtime: &options.Options{SystemdCgroup: true}}
		c := s.newContainer(w)
		err := c.create(w)
		s.seeError("create", err, "systemd")
	})
	for name, path := range map[string]string{"absolute": "/NS/ID/deep/er", "relative": "NS-relative", "none": ""} {
		compare(t, "cgroup path: "+name, func(s *side) {
			w := shell("cat /proc/self/cgroup; sleep 1000")
			id := fmt.Sprintf("p%d", serial.Add(1))
			w.id = id
			path := strings.ReplaceAll(path, "NS/ID", node.Namespace+"/"+id)
			path = strings.ReplaceAll(path, "NS", node.Namespace)
			w.opts = append(w.opts, oci.WithCgroup(path))
			c := s.started(w)
			s.see("cgroups", "%s", c.normal(strings.Join(cgroupsOf(s, int(c.task.Pid())), "\n")))
			_, err := c.task.Delete(s.context(), client.WithProcessKill)
			s.must(err)
			left, err := filepath.Glob("/sys/fs/cgroup/*/" + strings.Trim(path, "/"))
			s.must(err)
			if path != "" {
				s.see("left", "%d", len(left))
			}
			// Its parents, which are nobody's own, stay.
			for _, parent := range []string{filepath.Join(node.Namespace, id, "deep"), filepath.Join(node.Namespace, id)} {
				dirs, err := filepath.Glob("/sys/fs/cgroup/*/" + parent)
				s.must(err)
				for _, dir := range dirs {
					s.must(os.Remove(dir))
				}
			}
		})
	}
	compare(t, "foreign options", func(s *side) {
		// Past containerd, which refuses them itself: the shim of another container is asked.
		c := s.started(shell("sleep 1000"))
		bundle := s.TempDir()
		foreign, err := typeurl.MarshalAnyToProto(&apitypes.Mount{Type: "x"})
		s.must(err)
		_, err = c.shim().Create(s.shimContext(), &taskapi.CreateTaskRequest{
			ID: "another", Bundle: bundle, Options: &anypb.Any{TypeUrl: "example.com/Options", Value: []byte{8, 1}},
		})
		s.seeError("a type that nobody knows", err, "example.com/Options")
		_, err = c.shim().Create(s.shimContext(), &taskapi.CreateTaskRequest{ID: "another", Bundle: bundle, Options: foreign})
		s.Logf("%s: a type of something else: %v", s.runtime, err)
		if class(err) == "InvalidArgument" {
			s.see("a type of something else", "InvalidArgument")
		} else {
			s.see("a type of something else", "the shim dies")
		}
	})
	compare(t, "task API address", func(s *side) {
		// A second task is put into the shim of the first, as a sandbox's are.
		first := s.started(shell("sleep 1000"))
		w := shell("sleep 1000")
		w.task = []client.NewTaskOpts{client.WithTaskAPIEndpoint(first.address(), 3)}
		second := s.started(w)
		pid := func(c *container) uint32 {
			r, err := c.shim().Connect(s.shimContext(), &taskapi.ConnectRequest{ID: c.ID()})
			s.must(err)
			return r.ShimPid
		}
		s.see("one shim", "%t", pid(first) == pid(second))
		_, err := second.task.Delete(s.context(), client.WithProcessKill)
		s.must(err)
		s.see("the first is", "%s", statusOf(first))
	})
	compare(t, "an annotated group", func(s *side) {
		group := oci.WithAnnotations(map[string]string{"io.containerd.runc.v2.group": s.group()})
		a, b := s.started(shell("sleep 1000", group)), s.started(shell("exit 3", group))
		s.see("one shim", "%t", a.address() == b.address())
		s.see("exit", "%d", b.wait())
		_, err := b.task.Delete(s.context())
		s.must(err)
		s.see("the first is", "%s", statusOf(a))
	})
	compare(t, "user namespace", func(s *side) {
		id := fmt.Sprintf("p%d", serial.Add(1))
		image, err := node.Client().GetImage(s.context(), busyboxImage)
		s.must(err)
		w := want{id: id, new: []client.NewContainerOpts{client.WithNewSnapshot(id, image, client.WithUserNSRemapperLabels(
			[]specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}, []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}))}}
		w.opts = append(w.opts, oci.WithUserNamespace([]specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}, []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}))
		s.view(w).explained("it has a user namespace")
	})
}

func ignoreMissing(err error) error {
	if os.IsNotExist(err) {
		return nil
	}
	return err
}

func cgroupsOf(s *side, pid int) []string {
	s.Helper()
	p, err := harness.ReadProcess(pid)
	s.must(err)
	return p.Cgroups
}

// TestOtherNames runs our shim under the names under which it may be installed.
func TestOtherNames(t *testing.T) {
	path, err := filepath.Abs(filepath.Join(node.Bin, "containerd-shim-snap-v2"))
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]*side{
		"runc's name with runtime_path": {runtime: stock, path: path},
		"a path":                        {runtime: path},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s.T = t
			c := s.started(shell("read line; echo $line; exit 3"))
			r, err := c.shim().Connect(s.shimContext(), &taskapi.ConnectRequest{ID: c.ID()})
			s.must(err)
			if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", r.ShimPid)); err != nil || !strings.HasSuffix(exe, "/containerd-shim-snap-v2") {
				t.Errorf("the shim is %s, %v", exe, err)
			}
			if out, code := c.run("echo", "in exec"); out != "in exec\n" || code != 0 {
				t.Errorf("exec: %q, %d", out, code)
			}
			fmt.Fprintln(c.stdin, "said")
			if out := c.output(); out != "said\n" {
				t.Errorf("output %q", out)
			}
			if st, err := c.task.Delete(s.context()); err != nil || st.ExitCode() != 3 {
				t.Errorf("%v, %v", st, err)
			}
		})
	}
	t.Run("ctr with a path", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithTimeout(t.Context(), deadline)
		defer cancel()
		id := fmt.Sprintf("p%d", serial.Add(1))
		out, err := node.Ctr(ctx, "run", "--rm", "--runtime", path, busyboxImage, id, "echo", "said")
		if err != nil || out.Stdout != "said\n" {
			t.Errorf("%q, %v", out.Stdout, err)
		}
	})
}

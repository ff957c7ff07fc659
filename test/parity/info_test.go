package parity

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	cgroup1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	cgroup2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/runc/options"
	_ "github.com/containerd/containerd/v2/core/runtime" // registers the type of features with typeurl
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// TestInfo compares what the shims say of themselves with -info.
func TestInfo(t *testing.T) {
	compare(t, "info", func(s *side) {
		name := strings.ReplaceAll(strings.TrimPrefix(s.runtime, "io.containerd."), ".", "-")
		cmd := exec.CommandContext(s.context(), filepath.Join(node.Bin, "containerd-shim-"+name), "-info")
		cmd.Env = []string{"PATH=" + node.Bin}
		cmd.Stdin = &bytes.Buffer{}
		out, err := cmd.Output()
		s.must(err)
		var info types.RuntimeInfo
		s.must(proto.Unmarshal(out, &info))
		s.see("its name", "%t", info.Name == s.runtime)
		s.see("a version", "%t", info.GetVersion().GetVersion() != "")
		v, err := typeurl.UnmarshalAny(info.Features)
		s.must(err)
		f, ok := v.(*features.Features)
		if !ok {
			s.Fatalf("features are a %T", v)
		}
		// Of a binary that is not run ours does not tell the version.
		for key := range f.Annotations {
			if strings.HasPrefix(key, "org.opencontainers.runc.version") || strings.HasPrefix(key, "org.opencontainers.runc.commit") {
				delete(f.Annotations, key)
			}
		}
		data, err := json.MarshalIndent(f, "", " ")
		s.must(err)
		s.see("features", "%s", data)
	})
}

// TestStats compares the type of the metrics, and which of their fields are there.
func TestStats(t *testing.T) {
	compare(t, "stats", func(s *side) {
		c := s.started(shell("head -c 5000000 /dev/zero >/file; cat /file >/dev/null; x=$(head -c 3000000 /dev/zero | tr '\\0' x); echo ready; sleep 1000",
			oci.WithMemoryLimit(200<<20), oci.WithPidsLimit(50), oci.WithCPUShares(512)))
		c.waitFor(c.out, "ready")
		m, err := c.task.Metrics(s.context())
		s.must(err)
		s.see("id", "%t", m.ID == c.ID())
		v, err := typeurl.UnmarshalAny(m.Data)
		s.must(err)
		s.see("type", "%T", v)
		msg, ok := v.(proto.Message)
		if !ok {
			s.Fatalf("metrics are a %T", v)
		}
		s.see("messages", "%s", strings.Join(messages("", msg.ProtoReflect()), "\n"))
		switch v := v.(type) {
		case *cgroup1.Metrics:
			s.see("limits", "%d %d", v.Memory.Usage.Limit, v.Pids.Limit)
			s.see("use", "%t %t %t", v.CPU.Usage.Total > 0, v.Memory.Usage.Usage > 1<<20, v.Pids.Current == 2)
		case *cgroup2.Metrics:
			s.see("limits", "%d %d", v.Memory.UsageLimit, v.Pids.Limit)
			s.see("use", "%t %t %t", v.CPU.UsageUsec > 0, v.Memory.Usage > 1<<20, v.Pids.Current == 2)
		}
	})
}

// messages names the parts of metrics that are there; how many of each kind is chance.
func messages(prefix string, m protoreflect.Message) []string {
	var found []string
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		name := prefix + string(f.Name())
		switch {
		case f.IsList():
			found = append(found, name+" []")
		case f.Kind() == protoreflect.MessageKind && !f.IsMap():
			found = append(append(found, name), messages(name+".", v.Message())...)
		}
		return true
	})
	slices.Sort(found)
	return found
}

var digits = regexp.MustCompile("[0-9]+")

// TestCheckpoints: images are written, the task goes on or ends, and can be restored.
func TestCheckpoints(t *testing.T) {
	for name, exit := range map[string]bool{"goes on": false, "ends": true} {
		compare(t, "checkpoint and the task "+name, func(s *side) {
			c := s.started(shell("n=0; while :; do n=$((n+1)); echo count $n; sleep 0.05; done"))
			c.waitFor(c.out, "count 3")
			dir := filepath.Join(s.TempDir(), "images")
			s.must(os.Mkdir(dir, 0o700))
			req := &taskapi.CheckpointTaskRequest{ID: c.ID(), Path: dir}
			if exit {
				var err error
				req.Options, err = typeurl.MarshalAnyToProto(&options.CheckpointOptions{Exit: true})
				s.must(err)
			}
			_, err := c.shim().Checkpoint(s.shimContext(), req)
			s.seeError("checkpoint", err)
			found, err := filepath.Glob(filepath.Join(dir, "*.img"))
			s.must(err)
			var kinds []string
			for _, f := range found {
				kind := digits.ReplaceAllString(filepath.Base(f), "N")
				if !slices.Contains(kinds, kind) {
					kinds = append(kinds, kind)
				}
			}
			s.see("kinds of images", "%s", strings.Join(kinds, " "))
			if exit {
				s.see("exit", "%d", c.wait())
				st, err := c.task.Delete(s.context())
				s.must(err)
				s.see("the deletion's exit", "%d", st.ExitCode())
				return
			}
			before := c.out.String()
			s.eventually(func() error {
				if c.out.String() == before {
					return fmt.Errorf("the task stands still")
				}
				return nil
			})
			s.see("afterwards", "%s", statusOf(c))
		})
	}
}

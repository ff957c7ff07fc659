package doctor

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/survey"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/fixture"
	"github.com/containerd-snap/snap/oci/spec"
)

func TestContainerResult(t *testing.T) {
	for name, r := range map[string]ContainerResult{
		"fine": {Namespace: "default", Container: "web", PID: 42, Processes: 1, Capturable: true, Findings: []survey.Finding{}},
		"refused": {Namespace: "default", Container: "web", PID: 42, Processes: 2, Findings: []survey.Finding{
			{Level: survey.Problem, PID: 43, Command: "node", Resource: "fd 7 (anon_inode:[io_uring])", Words: "it uses io_uring, which CRIU cannot save", Remedy: "turn it off", More: 3},
			{Level: survey.Problem, Words: "it has a user namespace", Remedy: "make the container without it"},
			{Level: survey.Note, PID: 42, Command: "we\x1bb", Resource: "fd 5 (TCP socket)", Words: "an open TCP connection is left out"},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			if err := r.Write(&out); err != nil {
				t.Fatal(err)
			}
			fixture.Golden(t, "container-"+name+".txt", "", out.String())
			raw, err := json.MarshalIndent(r, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			fixture.Golden(t, "container-"+name+".json", "", string(raw)+"\n")
		})
	}
}

func TestContainer(t *testing.T) {
	st := fixture.Store(t)
	bundle := t.TempDir()
	config := `{"ociVersion": "1.2.0", "process": {"args": ["web"], "cwd": "/"}, "root": {"path": "rootfs"}}`
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	fixture.Start(t, st, "web", func(s *checkpoint.Start) { s.Bundle, s.PID = bundle, os.Getpid() })
	fixture.Start(t, st, "ended", func(s *checkpoint.Start) { s.Bundle, s.PID = bundle, 1<<30 })
	fixture.Start(t, st, "deleted", nil)
	fixture.Start(t, st, "failed", func(s *checkpoint.Start) { s.Error = "no luck" })
	// This test is no container: it has the host's namespaces.
	r, err := Container(st, spec.DefaultSettings(), "default", "web")
	if err != nil || r.Capturable || r.PID != os.Getpid() || r.Processes == 0 || r.Problems() == 0 {
		t.Errorf("Container = %+v, %v", r, err)
	}
	for id, want := range map[string]error{"ended": ErrEnded, "deleted": ErrEnded, "failed": ErrEnded, "nobody": checkpoint.ErrNotFound} {
		if _, err := Container(st, spec.DefaultSettings(), "default", id); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", id, err, want)
		}
	}
}

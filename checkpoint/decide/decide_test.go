package decide

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/store"
	"github.com/containerd-snap/snap/oci/spec"
)

const rootfs = "sha256:chain"

var facts = checkpoint.HostFacts{Arch: "amd64", Kernel: "6.12.1", CRIU: 40201, Cgroup: "v2"}

func container() *specs.Spec {
	return &specs.Spec{
		Root:    &specs.Root{Path: "rootfs"},
		Process: &specs.Process{Args: []string{"server"}, Cwd: "/"},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{
			{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.NetworkNamespace},
		}},
	}
}

// register adds a checkpoint of the container to a store.
func register(t *testing.T, st *store.Store, name string) checkpoint.Entry {
	t.Helper()
	d, err := st.NewDraft()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(d.ImagesDir(), "inventory.img"), []byte(name), 0o600); err != nil {
		t.Fatal(err)
	}
	e, err := d.Commit(t.Context(), checkpoint.Checkpoint{
		CreatedAt: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Fingerprint: spec.Fingerprint(container(), rootfs), Host: facts,
	}, store.CommitOptions{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// asked counts what a decision asked for.
type asked struct{ rootfs, fresh, facts int }

func TestDecide(t *testing.T) {
	full, err := store.Open(filepath.Join(t.TempDir(), "full"))
	if err != nil {
		t.Fatal(err)
	}
	e := register(t, full, "ready")
	none, err := store.Open(filepath.Join(t.TempDir(), "none"))
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("it is on fire")
	for name, c := range map[string]struct {
		store    *store.Store
		settings spec.Settings
		change   func(*specs.Spec)
		rootfs   error
		used     bool

		restores bool
		reason   string
		demanded bool
		fails    error
		asked    asked
	}{
		"it fits":                {store: full, restores: true, reason: "checkpoint ready fits", asked: asked{1, 1, 1}},
		"by name":                {store: full, settings: spec.Settings{Checkpoint: "ready"}, restores: true, demanded: true, reason: "asked for", asked: asked{1, 1, 1}},
		"memory":                 {store: full, settings: spec.Settings{Memory: checkpoint.MemoryMapped}, reason: "copy form", asked: asked{1, 1, 1}},
		"memory, by name":        {store: full, settings: spec.Settings{Checkpoint: "ready", Memory: checkpoint.MemoryMapped}, fails: ErrUnavailable, asked: asked{1, 1, 1}},
		"another program":        {store: full, change: func(s *specs.Spec) { s.Process.Cwd = "/srv" }, reason: "no registered checkpoint", asked: asked{1, 0, 0}},
		"a used layer":           {store: full, used: true, reason: "writable layer", asked: asked{1, 1, 1}},
		"never":                  {store: full, settings: spec.Settings{Restore: spec.Never}, reason: "restore=Never"},
		"a sandbox":              {store: full, change: func(s *specs.Spec) { s.Annotations = map[string]string{"io.kubernetes.cri.container-type": "sandbox"} }, reason: "pod sandbox"},
		"host's pids":            {store: full, change: func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[1:] }, reason: "pid namespace"},
		"nothing registered":     {store: none, reason: "no registered checkpoint"},
		"nothing, but required":  {store: none, settings: spec.Settings{Restore: spec.Required}, demanded: true, reason: "no registered checkpoint", asked: asked{1, 0, 0}},
		"no such name":           {store: full, settings: spec.Settings{Checkpoint: "absent"}, fails: checkpoint.ErrNotFound, asked: asked{1, 0, 0}},
		"no store":               {reason: "it is on fire"},
		"no store, but required": {settings: spec.Settings{Restore: spec.Required}, fails: broken},
		"no answer":              {store: full, rootfs: broken, reason: "the container's image is not known: it is on fire", asked: asked{1, 0, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			s := container()
			if c.change != nil {
				c.change(s)
			}
			var got asked
			node := Node{Store: c.store, StoreErr: broken, Facts: func(context.Context) (checkpoint.HostFacts, error) {
				got.facts++
				return facts, nil
			}}
			a, err := node.Decide(t.Context(), Container{
				OCI: s, Settings: c.settings,
				Rootfs: func(context.Context) (string, error) { got.rootfs++; return rootfs, c.rootfs },
				Fresh:  func() (bool, error) { got.fresh++; return !c.used, nil },
			})
			if got != c.asked {
				t.Errorf("asked for %+v, want %+v", got, c.asked)
			}
			if c.fails != nil {
				if !errors.Is(err, c.fails) {
					t.Errorf("error %v, want %v", err, c.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			d := a.Decision
			if (d.Action == checkpoint.Restore) != c.restores || !strings.Contains(d.Reason, c.reason) || d.Demanded != c.demanded {
				t.Errorf("decision %+v", d)
			}
			if (a.Memory == checkpoint.MemoryCopy) != c.restores {
				t.Errorf("memory %q: %s", a.Memory, a.MemoryReason)
			}
			if (a.Entry != nil) != c.restores || c.restores && a.Entry.Digest != e.Digest {
				t.Errorf("entry %+v", a.Entry)
			}
			if asked := got.rootfs > 0 && c.rootfs == nil; (a.Fingerprint != nil) != asked {
				t.Errorf("fingerprint %v", a.Fingerprint)
			}
		})
	}
}

func TestHostFacts(t *testing.T) {
	bin := t.TempDir()
	t.Setenv("PATH", bin)
	if f, err := HostFacts(t.Context(), t.TempDir()); err != nil || f.CRIU != 0 || f.Kernel == "" {
		t.Errorf("without CRIU: %+v, %v", f, err)
	}
	script := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(bin, "criu"), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	script("exit 1")
	if f, err := HostFacts(t.Context(), t.TempDir()); err != nil || f.CRIU != 0 {
		t.Errorf("with a broken CRIU: %+v, %v", f, err)
	}
	script("echo Version: 4.2.1")
	if f, err := HostFacts(t.Context(), t.TempDir()); err != nil || f.CRIU != 40201 {
		t.Errorf("with CRIU: %+v, %v", f, err)
	}
}

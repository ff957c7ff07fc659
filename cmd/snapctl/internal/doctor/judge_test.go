package doctor

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd-snap/snap/checkpoint/criu"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/fixture"
	"github.com/containerd-snap/snap/config"
)

// testPath is containerd's, and leads to nothing on any machine.
const testPath = "testdata/bin"

// healthy is a node with which nothing is wrong.
func healthy() Node {
	return Node{
		Path:     "/usr/sbin:/usr/bin",
		Facts:    fixture.Host,
		CRIU:     "testdata/bin/criu",
		Check:    "Looks good.",
		RunTmpfs: true,
		Shim:     "/usr/local/bin/containerd-shim-snap-v2",
		Version:  "v1.2.3", ConfigFile: config.DefaultFile,
		Host: Host{UserNamespaces: 1000, Features: map[string]bool{"timens": true, "pidfd_store": true, "uffd-noncoop": true, "nftables": true}},
		Containerd: Containerd{
			Address: "/run/containerd/containerd.sock", Version: "v2.4.2", Env: map[string]string{"PATH": testPath},
			Capabilities: 1<<40 - 1, CapabilitiesKnown: true, ShimVersion: "v1.2.3",
			Handlers: []Handler{{Name: "snap", PodAnnotations: []string{"io.containerd.snap.v2/*"}}},
		},
	}
}

func TestNode(t *testing.T) {
	for name, change := range map[string]func(*Node){
		"healthy": func(*Node) {},
		"not-root": func(n *Node) {
			n.UID = 1000
		},
		"no-criu": func(n *Node) {
			n.CRIU, n.CRIUErr, n.Facts.CRIU = "", fmt.Errorf("find criu: %w", criu.ErrNotInstalled), 0
		},
		"broken-criu": func(n *Node) {
			n.CRIUErr, n.Facts.CRIU = errors.New("run /usr/sbin/criu --version: exit status 127: libbsd.so.0: not found"), 0
		},
		"old-criu": func(n *Node) { n.Facts.CRIU = 31701 },
		"new-kernel": func(n *Node) {
			n.Facts.CRIU, n.Facts.Kernel = 40101, "6.18.2"
		},
		"check-fails": func(n *Node) {
			n.Check, n.CheckErr = "Error (criu/vdso.c:302): unexpected area bounds", errors.New("exit status 1")
		},
		"check-hangs":    func(n *Node) { n.Check, n.CheckErr = "", errors.New("context deadline exceeded") },
		"check-silent":   func(n *Node) { n.Check = "" },
		"run-on-disk":    func(n *Node) { n.RunTmpfs = false },
		"no-shim":        func(n *Node) { n.Shim, n.Containerd = "", Containerd{Err: errors.New("containerd does not answer")} },
		"no-containerd":  func(n *Node) { n.Containerd = Containerd{Err: errors.New("containerd does not answer")} },
		"old-containerd": func(n *Node) { n.Containerd.Version = "v2.2.9" },
		"no-shim-there": func(n *Node) {
			n.Containerd.ShimErr, n.Containerd.ShimVersion = errors.New(`exec: "containerd-shim-snap-v2": executable file not found in $PATH`), ""
		},
		"other-shim":       func(n *Node) { n.Containerd.ShimVersion = "v1.0.0" },
		"no-criu-there":    func(n *Node) { n.Containerd.Env["PATH"] = "/nowhere/at/all" },
		"other-criu":       func(n *Node) { n.CRIU = "/nowhere/else/criu" },
		"no-environment":   func(n *Node) { n.Containerd.Env = nil },
		"other-config":     func(n *Node) { n.Containerd.Env["CONTAINERD_SNAP_CONFIG"] = "/etc/other.toml" },
		"bad-config":       func(n *Node) { n.ConfigErr = errors.New("read /etc/containerd/snap.toml: line 3: unknown key rot") },
		"no-rights":        func(n *Node) { n.Containerd.Capabilities &^= 1 << capSysResource },
		"no-handlers":      func(n *Node) { n.Containerd.Handlers = nil },
		"handlers-unknown": func(n *Node) { n.Containerd.HandlersErr = errors.New("exit status 1") },
		"handlers": func(n *Node) {
			n.Containerd.Handlers = append(n.Containerd.Handlers, Handler{Name: "quiet"}, Handler{Name: "systemd", SystemdCgroup: true, PodAnnotations: []string{"io.containerd.snap.v2/*"}})
		},
		"host": func(n *Node) {
			n.Host = Host{Hybrid: true, CRIUFiles: []string{"/etc/criu/default.conf"}, SELinux: true, Features: map[string]bool{"timens": false, "nftables": true}}
			n.Facts.Cgroup = "v1"
		},
		"no-facts": func(n *Node) { n.FactsErr = errors.New("read CPU features: /proc/cpuinfo: no such file") },
	} {
		t.Run(name, func(t *testing.T) {
			n := healthy()
			change(&n)
			var out bytes.Buffer
			if err := (Result{Checks: n.checks()}).Write(&out); err != nil {
				t.Fatal(err)
			}
			fixture.Golden(t, "node-"+name+".txt", "", out.String())
		})
	}
}

func TestSince616(t *testing.T) {
	for release, want := range map[string]bool{
		"": false, "linux": false, "6.12.48-amd64": false, "6.15.11": false, "6.16.0": true, "6.16-rc1": true, "6.18.44": true, "7.0": true, "5.99": false,
	} {
		if got := since616(release); got != want {
			t.Errorf("since616(%q) = %v", release, got)
		}
	}
}

func TestLastLines(t *testing.T) {
	for out, want := range map[string]string{
		"": "", "\n\n": "", "one": "one", "a\n\nb\r\nc\n  d\n": "b; c; d",
	} {
		if got := lastLines([]byte(out), 3); got != want {
			t.Errorf("lastLines(%q) = %q, want %q", out, got, want)
		}
	}
}

func TestProbe(t *testing.T) {
	bin := t.TempDir()
	for name, script := range map[string]string{
		"criu":      `if [ "$1" = check ]; then echo "Warn: no soft-dirty" >&2; echo "Looks good."; else echo "Version: 4.2.1"; fi`,
		shimProgram: "exit 0",
	} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin)
	n := Probe(t.Context(), "/nowhere")
	if n.FactsErr != nil || n.CRIUErr != nil || n.CheckErr != nil {
		t.Fatalf("Probe: %v, %v, %v", n.FactsErr, n.CRIUErr, n.CheckErr)
	}
	if n.Facts.CRIU != 40201 || n.CRIU != filepath.Join(bin, "criu") || n.Shim != filepath.Join(bin, shimProgram) || n.Path != bin {
		t.Errorf("Probe = %+v", n)
	}
	if want := "Warn: no soft-dirty; Looks good."; n.UID == 0 && n.Check != want {
		t.Errorf("criu check said %q, want %q", n.Check, want)
	}
	if err := os.WriteFile(filepath.Join(bin, "criu"), []byte("#!/bin/sh\necho broken; exit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if n := Probe(t.Context(), "/nowhere"); n.CRIUErr == nil {
		t.Error("a criu that fails was not noticed")
	}
	if out, err := check(t.Context(), filepath.Join(bin, "criu")); err == nil || out != "broken" {
		t.Errorf("check = %q, %v", out, err)
	}
	t.Setenv("PATH", t.TempDir())
	if n := Probe(t.Context(), "/nowhere"); !errors.Is(n.CRIUErr, criu.ErrNotInstalled) || n.Shim != "" || !strings.HasPrefix(n.Path, "/") {
		t.Errorf("Probe with an empty PATH = %+v", n)
	}
}

func TestParseHandlers(t *testing.T) {
	const dump = `version = 4
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.snap]
  runtime_type = 'io.containerd.snap.v2'
  pod_annotations = ['io.containerd.snap.v2/*']
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.snap.options]
    SystemdCgroup = true
[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.old]
  runtime_type = 'io.containerd.snap.v2'
[plugins.'io.containerd.gc.v1.scheduler']
  mutation_threshold = 100
`
	got, err := parseHandlers([]byte(dump))
	if err != nil || len(got) != 2 || got[0].Name != "old" || got[1].Name != "snap" || !got[1].SystemdCgroup || len(got[1].PodAnnotations) != 1 {
		t.Errorf("parseHandlers = %+v, %v", got, err)
	}
	if _, err := parseHandlers([]byte("plugins = 3")); err == nil {
		t.Error("a configuration of another kind was read")
	}
}

func TestOptions(t *testing.T) {
	file := filepath.Join(t.TempDir(), "default.conf")
	for content, want := range map[string]bool{"": false, "# tcp-close\n\n": false, "tcp-close\n": true} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := options(file); got != want {
			t.Errorf("options(%q) = %v", content, got)
		}
	}
	if options(file + ".absent") {
		t.Error("an absent file sets options")
	}
}

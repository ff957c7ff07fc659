package deps

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/containerd-snap/snap"

// pkg is what `go list` says of a package.
type pkg struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	CgoFiles   []string
	// Imports are those of its own files, Deps also those of what it imports.
	Imports, Deps             []string
	TestImports, XTestImports []string
}

// short is the path below the module.
func (p *pkg) short() string { return strings.TrimPrefix(p.ImportPath, module+"/") }

// load lists the packages of the module.
func load(t *testing.T) []*pkg {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-tags", "seccomp,no_grpc",
		"-json=ImportPath,Dir,GoFiles,CgoFiles,Imports,Deps,TestImports,XTestImports", module+"/...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			t.Fatalf("list packages: %v: %s", err, exit.Stderr)
		}
		t.Fatalf("list packages: %v", err)
	}
	var pkgs []*pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("read go list: %v", err)
		}
		pkgs = append(pkgs, &p)
	}
	if len(pkgs) < 10 {
		t.Fatalf("go list names %d packages", len(pkgs))
	}
	return pkgs
}

// under says that path is one of roots or below it. A root that ends with "$"
// stands for itself only.
func under(path string, roots ...string) bool {
	for _, r := range roots {
		exact, only := strings.CutSuffix(r, "$")
		if path == exact || !only && strings.HasPrefix(path, r+"/") {
			return true
		}
	}
	return false
}

// rule forbids imports.
type rule struct {
	// of are the packages, below the module, that it holds for; except are not.
	of, except []string
	// deny are the imports that they may not have, allow is let through.
	deny, allow []string
	// deep also looks at what is imported by what they import; tests also at
	// their tests.
	deep, tests bool
	// because is the reason.
	because string
}

var rules = []rule{
	{
		of:      []string{"checkpoint$"},
		deny:    []string{module},
		deep:    true,
		because: "the domain's types are what everything else depends on, so they depend on nothing of ours",
	},
	{
		of:      []string{"checkpoint$"},
		deny:    []string{"os", "net", "syscall", "golang.org", "google.golang.org", "github.com"},
		allow:   []string{"net/netip$"}, // addresses as values
		because: "the domain is pure data: it reads no file and knows no system",
	},
	{
		of:      []string{"checkpoint/match", "checkpoint/retain", "checkpoint/tally"},
		deny:    []string{"os", "io", "net", "syscall", "math/rand", "context", "golang.org", "google.golang.org", "github.com"},
		allow:   []string{module + "/checkpoint$", module + "/checkpoint/retain$", module + "/oci/spec$"}, // oci/spec for the names of settings and fields.
		because: "a decision depends on its arguments alone, so that it can be tested and explained",
	},
	{
		of:      []string{"checkpoint", "oci", "config"},
		deny:    []string{module + "/shim", "github.com/containerd/containerd/v2", "github.com/opencontainers/runc", "github.com/opencontainers/cgroups", "google.golang.org/grpc", "github.com/containerd/ttrpc"},
		deep:    true,
		because: "snapctl and tests use them without a shim, and a shim is not what they are about",
	},
	{
		of:      []string{"shim/lifecycle"},
		deny:    []string{"google.golang.org", "github.com/containerd/ttrpc", "github.com/containerd/containerd", "github.com/opencontainers/runc", "github.com/opencontainers/cgroups", module},
		allow:   []string{module + "/shim/lifecycle$"},
		deep:    true,
		because: "the core knows no wire format and no runtime: it sees them through its own interfaces, so that its tests can replace them",
	},
	{
		of:      []string{""},
		except:  []string{"shim/libct"},
		deny:    []string{"github.com/opencontainers/runc"},
		tests:   true,
		because: "libcontainer's Go API changes between minor versions: shim/libct is the one adapter",
	},
	{
		of:      []string{""},
		except:  []string{"shim/task", "shim/manager", "cmd/containerd-shim-snap-v2", "test"},
		deny:    []string{"github.com/containerd/containerd/api/runtime", "github.com/containerd/containerd/v2/pkg/shim"},
		because: "containerd's protocols for shims end at the edge",
	},
	{
		of:      []string{"shim", "checkpoint", "oci", "config"},
		deny:    []string{module + "/cmd", module + "/test"},
		tests:   true,
		because: "libraries do not know the programs that use them",
	},
	{
		of:      []string{""},
		except:  []string{"cmd", "test"},
		deny:    []string{module + "/shim/task"},
		because: "only cmd wires",
	},
	{
		of:      []string{""},
		except:  []string{"cmd", "test", "shim/options", "shim/start"},
		deny:    []string{module + "/config"},
		because: "the configuration is read by cmd; below it only those know its types whose behaviour it sets",
	},
	{
		of:      []string{"shim/auto", "shim/probe"},
		deny:    []string{module + "/shim"},
		allow:   []string{module + "/shim/auto$", module + "/shim/probe$"},
		deep:    true,
		because: "when to capture, and how to ask whether a program is ready, know no runtime: they see a task through interfaces of their own",
	},
	{
		of:      []string{"checkpoint/ready"},
		deny:    []string{"os", "net", "context", "golang.org", module},
		allow:   []string{"net/netip", "net/url", module + "/checkpoint/ready$"},
		because: "it is a grammar, which asks nobody",
	},
	{
		of:      []string{"shim/pager", "shim/rebind", "shim/netlock", "shim/netns", "shim/inherit", "shim/idle", "shim/identity"},
		deny:    []string{module},
		allow:   []string{module + "/checkpoint$", module + "/checkpoint/criu$", module + "/shim/inherit$", module + "/shim/netns$"},
		because: "each does one thing for a start, and knows neither tasks nor containers nor the store",
	},
	{
		of:      []string{"shim", "cmd/containerd-shim-snap-v2"},
		deny:    []string{module + "/checkpoint/archive", "archive/tar"},
		deep:    true,
		because: "checkpoints are carried by the operator's command; no container waits for that",
	},
	{
		of:      []string{"checkpoint/criu/image"},
		deny:    []string{module},
		because: "what images are written in is the same for all who read them",
	},
	{
		of:      []string{"checkpoint/archive", "checkpoint/criu"},
		deny:    []string{module},
		allow:   []string{module + "/checkpoint$", module + "/checkpoint/store$", module + "/checkpoint/criu$", module + "/checkpoint/criu/image$"},
		because: "formats are read and written for whoever asks, and decide nothing",
	},
	{
		of:      []string{"shim"},
		except:  []string{"shim/manager"},
		deny:    []string{module + "/shim/manager"},
		because: "the short-lived side uses the long-lived one, not the other way round",
	},
	{
		of:      []string{"cmd/snapctl"},
		deny:    []string{"github.com/opencontainers/runc", "github.com/opencontainers/cgroups", module + "/shim"},
		allow:   []string{module + "/shim/capture$"},
		deep:    true,
		because: "the operator's command asks shims; it is no runtime",
	},
	{
		of: []string{"cmd/containerd-shim-snap-v2"},
		deny: []string{
			"github.com/spf13", "github.com/urfave", "k8s.io", "sigs.k8s.io", "go.opentelemetry.io", "github.com/prometheus",
			"github.com/containerd/containerd/v2/client", "github.com/containerd/containerd/v2/core/metadata", "go.etcd.io",
			"github.com/opencontainers/runc$", "github.com/Microsoft", "testing", "encoding/xml", "expvar",
			"google.golang.org/grpc$", "google.golang.org/grpc/internal/transport", "golang.org/x/net/http2$", "golang.org/x/net/trace",
			"net/http", "text/template", "html/template", "database/sql", "plugin", "encoding/gob",
		},
		deep:    true,
		because: "it is started for each container: what it links is paid for in its start and in its memory",
	},
	{
		of:      []string{""},
		deny:    []string{"github.com/pkg/errors", "github.com/golang/protobuf", "io/ioutil", "math/rand$", "golang.org/x/exp"},
		tests:   true,
		because: "they are replaced by errors, google.golang.org/protobuf, os, math/rand/v2, slices and maps",
	},
}

func (r *rule) holdsFor(p *pkg) bool {
	if under(p.short(), r.except...) {
		return false
	}
	return slices.Contains(r.of, "") || under(p.short(), r.of...)
}

func (r *rule) denied(p *pkg) []string {
	imports := slices.Clone(p.Imports)
	if r.deep {
		imports = append(imports, p.Deps...)
	}
	if r.tests {
		imports = append(append(imports, p.TestImports...), p.XTestImports...)
	}
	slices.Sort(imports)
	var denied []string
	for _, i := range slices.Compact(imports) {
		if under(i, r.deny...) && !under(i, r.allow...) {
			denied = append(denied, i)
		}
	}
	return denied
}

func TestImportRules(t *testing.T) {
	pkgs := load(t)
	for _, r := range rules {
		applied := 0
		for _, p := range pkgs {
			if !r.holdsFor(p) {
				continue
			}
			applied++
			for _, i := range r.denied(p) {
				t.Errorf("%s imports %s: %s", p.short(), i, r.because)
			}
		}
		if applied == 0 {
			t.Errorf("no package is held to the rule of %v: %s", r.of, r.because)
		}
	}
}

// The rules themselves: each must be able to fail.
func TestRulesCatch(t *testing.T) {
	for _, r := range rules {
		of := strings.TrimSuffix(r.of[0], "$")
		if of == "" {
			of = "shim/none"
		}
		for _, d := range r.deny {
			d = strings.TrimSuffix(d, "$")
			if d == module {
				d += "/elsewhere"
			}
			p := &pkg{ImportPath: module + "/" + of, Imports: []string{"fmt", d}}
			if !r.holdsFor(p) || !slices.Contains(r.denied(p), d) {
				t.Errorf("%s may import %s, though %s", of, d, r.because)
			}
		}
	}
	if under("os/exec", "os$") || !under("os/exec", "os") || under("osx", "os") {
		t.Error("under")
	}
}

package libct

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"
)

// The package's comment lists the contract: each test that it names is there.
func TestContractIsListed(t *testing.T) {
	doc, err := os.ReadFile("config.go")
	must(t, err)
	files, err := filepath.Glob("*_test.go")
	must(t, err)
	var tests strings.Builder
	for _, f := range files {
		data, err := os.ReadFile(f)
		must(t, err)
		tests.Write(data)
	}
	names := regexp.MustCompile(`Test\w+`).FindAllString(string(doc), -1)
	if len(names) < 20 {
		t.Fatalf("the comment names %q", names)
	}
	for _, name := range names {
		if !strings.Contains(tests.String(), "\nfunc "+name+"(t *testing.T) {") {
			t.Errorf("there is no %s", name)
		}
	}
}

// libcontainer and this package enter namespaces on threads that end. The first
// one never does, and /proc/self is its view.
func TestFirstThreadStays(t *testing.T) {
	read := func() string {
		var all []string
		for _, ns := range []string{"mnt", "net", "uts", "cgroup"} {
			link, err := os.Readlink("/proc/self/ns/" + ns)
			must(t, err)
			all = append(all, link)
		}
		return strings.Join(all, " ")
	}
	before := read()
	for range 8 {
		b := newBundle(t, "exit 0")
		c, init := b.boot(newPipes(t))
		ns, err := NewNamespaces(b.spec.OCI)
		must(t, err)
		if now := read(); now != before {
			t.Fatalf("the first thread was in %s and is in %s", before, now)
		}
		must(t, ns.Close())
		waitFor(t, init)
		must(t, c.Destroy())
	}
}

// What a view of a container shares with others, and what waits for what.
func TestContractViews(t *testing.T) {
	b, _, c, init := begin(t, "echo begun; exec sleep 1000")

	// Dump gives a loaded container's network namespace a path, and lets
	// Checkpoint see it: Config returns a copy that shares its namespaces.
	view, err := libcontainer.Load(b.runtime.Root, b.spec.ID)
	must(t, err)
	cfg := view.Config()
	join(&cfg, configs.NEWNET, "/proc/1/ns/net")
	seen := view.Config()
	if seen.Namespaces.PathOf(configs.NEWNET) != "/proc/1/ns/net" {
		t.Error("a container's Config does not share its namespaces: Dump.Detached would be without effect")
	}
	// It is the view's own, and no other's.
	other := c.c.Config()
	if got := other.Namespaces.PathOf(configs.NEWNET); got == "/proc/1/ns/net" {
		t.Error("another view of the container has changed")
	}

	// Signals do not wait for the container's mutex: a frozen container's init
	// takes one that is delivered when it is thawed.
	must(t, c.Freeze())
	done := make(chan error, 1)
	go func() { done <- init.Signal(unix.SIGKILL) }()
	select {
	case err := <-done:
		must(t, err)
	case <-time.After(10 * time.Second):
		t.Error("a signal waits")
	}
	must(t, c.Thaw())
	waitFor(t, init)
	must(t, c.Destroy())
	b.wantNothing()
}

// A container's cgroup manager lies where manageFromOutside puts another.
func TestContractCgroupManager(t *testing.T) {
	b := newBundle(t, "exit 0")
	cfg, err := b.spec.config()
	must(t, err)
	c, err := libcontainer.Create(b.runtime.Root, b.spec.ID, cfg)
	must(t, err)
	defer func() { must(t, c.Destroy()) }()
	must(t, manageFromOutside(c))
	m := reflect.ValueOf(c).Elem().FieldByName("cgroupManager").Elem()
	if m.Type() != reflect.TypeFor[outside]() {
		t.Errorf("the container's manager is of type %s", m.Type())
	}
}

// TestContractCRIUVersion: told CRIU's version, libcontainer starts none to ask, and judges
// by what it was told.
func TestContractCRIUVersion(t *testing.T) {
	b := newBundle(t, "exit 0")
	cfg, err := b.spec.config()
	must(t, err)
	c, err := libcontainer.Create(b.runtime.Root, b.spec.ID, cfg)
	must(t, err)
	defer func() { must(t, c.Destroy()) }()
	t.Setenv("PATH", t.TempDir())
	must(t, knowCRIU(c, 20000))
	if err := c.Checkpoint(&libcontainer.CriuOpts{}); err == nil || !strings.Contains(err.Error(), "CRIU version 20000 must be 30000 or higher") {
		t.Errorf("got %v", err)
	}
}

package store

import (
	"bufio"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd-snap/snap/checkpoint"
)

// childEnv names the part that a re-executed test binary plays; see children.
const childEnv = "SNAP_STORE_TEST_CHILD"

// children are what a process of its own does in a test, given a store's root. Each
// prints a line on stdout whenever it has done something that a test waits for.
var children = map[string]func(root string) error{
	"churn":       childChurn,
	"count":       childCount,
	"draft":       childDraft,
	"fail":        childFail,
	"hold":        childHold,
	"name":        childName,
	"retain":      childRetain,
	"space":       childSpace,
	"space-start": childSpaceStart,
}

func TestMain(m *testing.M) {
	if part := os.Getenv(childEnv); part != "" {
		if err := children[part](os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, part+":", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child is a re-executed test binary.
type child struct {
	cmd    *exec.Cmd
	lines  *bufio.Scanner
	stdin  *os.File
	stderr *strings.Builder
}

// startChild runs a part of children in a process of its own. It ends with the test.
func startChild(t *testing.T, part, root string, prepare ...func(*exec.Cmd)) *child {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	c := &child{cmd: exec.CommandContext(ctx, exe, root), stderr: new(strings.Builder)}
	c.cmd.Env = append(os.Environ(), childEnv+"="+part)
	c.cmd.Stderr = c.stderr
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c.cmd.Stdin, c.stdin = r, w
	t.Cleanup(func() { w.Close() })
	for _, p := range prepare {
		p(c.cmd)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.Close()
	c.lines = bufio.NewScanner(out)
	return c
}

// line waits for the child's next line.
func (c *child) line(t *testing.T) string {
	t.Helper()
	if !c.lines.Scan() {
		t.Fatalf("child ended early: %v: %s", c.cmd.Wait(), c.stderr)
	}
	return c.lines.Text()
}

// release lets a child go on that waits with awaitParent.
func (c *child) release() { c.stdin.Close() }

func (c *child) wait(t *testing.T) {
	t.Helper()
	for c.lines.Scan() {
	}
	if err := c.cmd.Wait(); err != nil {
		t.Fatalf("child: %v: %s", err, c.stderr)
	}
}

// kill ends the child as a power cut would, and waits until the kernel has freed its locks.
func (c *child) kill(t *testing.T) {
	t.Helper()
	if err := c.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for c.lines.Scan() {
	}
	_ = c.cmd.Wait() // "signal: killed"
}

// awaitParent returns when the parent calls release or dies.
func awaitParent() {
	_, _ = os.Stdin.Read(make([]byte, 1))
}

func newStore(t testing.TB) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// testMeta returns metadata that makes a digest of its own.
func testMeta(fingerprint string, created time.Time) checkpoint.Checkpoint {
	return checkpoint.Checkpoint{
		CreatedAt:   created,
		Source:      checkpoint.Source{Namespace: "default", Container: rand.Text(), Command: "server --port 80", Processes: 2},
		Fingerprint: checkpoint.Fingerprint{"args": fingerprint},
		Host:        checkpoint.HostFacts{Arch: "amd64", Kernel: "6.1.0", CPUFeatures: []string{"avx", "fpu"}, CRIU: 40201, Cgroup: "v2"},
		Timing:      checkpoint.Timing{PauseMS: 12.5, DumpMS: 10, DiffMS: 2},
	}
}

var testTime = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// testImages is what fill writes below images/.
var testImages = map[string]string{
	"core-1.img":        "the registers",
	"inventory.img":     "what there is",
	"pages-1.img":       strings.Repeat("secret of the program ", 1000),
	"mapped/big-1.img":  strings.Repeat("more memory ", 100),
	"descriptors.json":  `["/dev/null","pipe:[1]","pipe:[2]"]`,
	"mapped/empty.img":  "",
	"pagemap-1.img":     "where it was",
	"mapped.d/last.img": "sorts before mapped/ as a string, and after it in a walk",
}

// fill writes the files of a small checkpoint into a draft.
func fill(d *Draft) error {
	for name, content := range testImages {
		path := filepath.Join(d.ImagesDir(), name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Join(d.DiffDir(), "var/lib/app"), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(d.DiffDir(), "var/lib/app/data"), []byte("rows"), 0o640); err != nil {
		return err
	}
	return os.Symlink("/var/lib/app", filepath.Join(d.DiffDir(), "app"))
}

// register commits a small checkpoint.
func register(s *Store, meta checkpoint.Checkpoint, opts CommitOptions) (checkpoint.Entry, error) {
	d, err := s.NewDraft()
	if err != nil {
		return checkpoint.Entry{}, err
	}
	defer d.Discard()
	if err := fill(d); err != nil {
		return checkpoint.Entry{}, err
	}
	return d.Commit(context.Background(), meta, opts)
}

func mustRegister(t testing.TB, s *Store, meta checkpoint.Checkpoint, opts CommitOptions) checkpoint.Entry {
	t.Helper()
	e, err := register(s, meta, opts)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// assertClean fails unless nothing lies in the store but what belongs to the given number
// of entries.
func assertClean(t *testing.T, s *Store, entries int) {
	t.Helper()
	for dir, want := range map[string]int{entriesDir: entries, draftsDir: 0, trashDir: 0, tmpDir: 0} {
		names, err := listDir(s.path(dir))
		if err != nil {
			t.Fatal(err)
		}
		if len(names) != want {
			t.Errorf("%s holds %q, want %d", dir, names, want)
		}
	}
	hexes, err := s.hexes()
	if err != nil {
		t.Fatal(err)
	}
	live := make(map[string]bool)
	for _, hex := range hexes {
		live[hex] = true
	}
	states, _ := listDir(s.path(stateDir))
	for _, name := range states {
		if hex, _, _ := strings.Cut(name, "."); !live[hex] {
			t.Errorf("state of no entry: %s", name)
		}
	}
	names, _ := listDir(s.path(namesDir))
	for _, name := range names {
		if holder, err := s.holder(name); holder == "" || err != nil {
			t.Errorf("name of no entry: %s (%v)", name, err)
		}
	}
	keys, _ := listDir(s.path(indexDir))
	for _, key := range keys {
		found, _ := listDir(s.path(indexDir, key))
		if len(found) == 0 {
			t.Errorf("empty index %s", key)
		}
		for _, hex := range found {
			if !live[hex] {
				t.Errorf("index of no entry: %s", hex)
			}
		}
	}
}

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/ttrpc"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/host"
	"github.com/containerd-snap/snap/checkpoint/store"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/daemon"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/fixture"
	"github.com/containerd-snap/snap/config"
	"github.com/containerd-snap/snap/shim/capture"
)

// node is a store with what the command finds beside it: a configuration that names
// it, and a CRIU.
func node(t *testing.T) *store.Store {
	t.Helper()
	st := fixture.Store(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "snap.toml")
	write(t, file, "root = \""+st.Root()+"\"\n", 0o600)
	write(t, filepath.Join(dir, "criu"), "#!/bin/sh\n[ $1 = check ] && echo Looks good. || echo Version: 4.2.1\n", 0o755)
	t.Setenv(config.EnvFile, file)
	t.Setenv("PATH", dir)
	t.Setenv(envNamespace, "")
	t.Setenv(daemon.EnvAddress, filepath.Join(dir, "containerd.sock"))
	return st
}

// here describes a checkpoint that can be restored on this machine.
func here(t *testing.T) checkpoint.Checkpoint {
	t.Helper()
	facts, err := host.Facts(40201)
	if err != nil {
		t.Fatal(err)
	}
	c := fixture.Checkpoint(0)
	c.Host = facts
	return c
}

// run runs the command.
func run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = Main(t.Context(), Env{
		Args:    args,
		Stdout:  &out,
		Stderr:  &errs,
		Version: "v1.2.3",
		Now:     func() time.Time { return fixture.Captured.Add(time.Hour) },
	})
	return code, out.String(), errs.String()
}

func TestExitCodes(t *testing.T) {
	st := node(t)
	fixture.Add(t, st, "web-ready", here(t))
	fixture.Start(t, st, "web", nil)
	for _, c := range []struct {
		args   string
		code   int
		stdout string
		stderr string
	}{
		{"", exitOK, "Available Commands:", ""},
		{"--help", exitOK, "Exit codes:", ""},
		{"version", exitOK, "snapctl v1.2.3\n", ""},
		{"completion bash", exitOK, "complete", ""},
		{"__complete inspect web", exitOK, "web-ready\n", ""},
		{"ls", exitOK, "ready", ""},
		{"list", exitOK, "web-ready", ""},
		{"ls -q", exitOK, "sha256:", ""},
		{"inspect web-ready", exitOK, "Fingerprint", ""},
		{"explain web", exitOK, "no registered checkpoint", ""},
		{"--root " + st.Root() + " ls", exitOK, "web-ready", ""},

		{"pin web-ready", exitOK, "pinned web-ready\n", ""},
		{"ls", exitOK, "pinned", ""},
		{"rm web-ready", exitFailed, "", "unpin"},
		{"prune --max-bytes 1KiB --json", exitOK, `"freedBytes": 0`, ""},
		{"unpin web-ready", exitOK, "unpinned web-ready\n", ""},
		{"prune", exitOK, "removed 0 checkpoints, 0 B\n", ""},
		{"prune --dry-run --max-age 1s", exitOK, "would remove 1 checkpoint", ""},

		{"pin absent", exitFailed, "", "checkpoint not found"},
		{"unpin absent", exitFailed, "", "checkpoint not found"},
		{"pin", exitUsage, "", "at least one REF"},
		{"prune web", exitUsage, "", "it takes no argument"},
		{"prune --max-bytes lots", exitUsage, "", "50GiB"},
		{"prune --max-idle lots", exitUsage, "", "30d"},

		{"inspect absent", exitFailed, "", "snapctl: resolve \"absent\": checkpoint not found"},
		{"rm absent", exitFailed, "", "checkpoint not found"},
		{"clear absent", exitFailed, "", "checkpoint not found"},
		{"explain absent", exitFailed, "", "no start of it is recorded"},
		{"explain -n other web", exitFailed, "", "did you mean web -n default?"},
		{"create absent", exitFailed, "", "no start of it is recorded"},
		{"create web", exitFailed, "", "its shim is gone"},
		{"create web --name web-ready", exitFailed, "", "--replace"},
		{"--root /nowhere/at/all ls", exitFailed, "", "--root"},

		{"__complete explain w", exitOK, "web\n", ""},
		{"__complete doctor w", exitOK, "web\n", ""},
		{"__complete create -n other w", exitOK, ":4\n", ""},
		{"__complete rm web-ready w", exitOK, ":4\n", ""},
		{"explain registry.example/web:1", exitOK, "web-ready", ""},
		{"explain registry.example/absent:1", exitFailed, "", "no checkpoint was taken of it"},
		{"explain --dry-run web", exitFailed, "", "containerd does not answer: there is no such socket"},
		{"explain -a /x --dry-run web", exitFailed, "", "containerd at /x"},
		{"doctor web", exitFailed, "", "the container does not run: start it first"},
		{"doctor absent", exitFailed, "", "no start of it is recorded"},
		{"explain", exitUsage, "", "give one CONTAINER or IMAGE"},
		{"explain web -- sh", exitUsage, "", "need --dry-run"},
		{"explain --env A=b web", exitUsage, "", "--env: give --dry-run, too"},
		{"explain --dry-run --mount type=bind i", exitUsage, "", "dst is missing"},
		{"explain --dry-run --mount size=3 i", exitUsage, "", "unknown key \"size\""},
		{"explain --dry-run --annotation x i", exitUsage, "", "write KEY=VALUE"},
		{"doctor web x", exitUsage, "", "at most one CONTAINER"},
		{"doctor --verify web", exitUsage, "", "give no CONTAINER"},

		{"nonsense", exitUsage, "", "unknown command"},
		{"inspec", exitUsage, "", "Did you mean this?"},
		{"ls web", exitUsage, "", "it takes no argument"},
		{"ls --nonsense", exitUsage, "", "unknown flag: --nonsense\nRun 'snapctl ls --help' for usage.\n"},
		{"ls --json -q", exitUsage, "", "exclude each other"},
		{"inspect", exitUsage, "", "give one REF"},
		{"rm", exitUsage, "", "at least one REF"},
		{"create", exitUsage, "", "give one CONTAINER"},
		{"create web --timeout 0", exitUsage, "", "--timeout"},
		{"create web --timeout soon", exitUsage, "", "--timeout"},
		{"create web --replace", exitUsage, "", "--name"},
		{"create web --name Web", exitUsage, "", "'W' is not allowed"},
		{"create a/b", exitUsage, "", "invalid container"},
	} {
		t.Run(c.args, func(t *testing.T) {
			code, stdout, stderr := run(t, strings.Fields(c.args)...)
			if code != c.code || !strings.Contains(stdout, c.stdout) || !strings.Contains(stderr, c.stderr) {
				t.Errorf("exit code %d, want %d\n--- stdout, want %q\n%s--- stderr, want %q\n%s", code, c.code, c.stdout, stdout, c.stderr, stderr)
			}
			if code != exitOK && (stdout != "" || !strings.HasPrefix(stderr, "snapctl: ")) {
				t.Errorf("an error wrote %q to stdout and %q to stderr", stdout, stderr)
			}
			if code == exitFailed && strings.Contains(stderr, "--help") {
				t.Errorf("an error that is not one of usage speaks of usage: %q", stderr)
			}
		})
	}
}

// TestCarry exports a checkpoint and imports it into another store.
func TestCarry(t *testing.T) {
	e := fixture.Add(t, node(t), "web-ready", here(t))
	file := filepath.Join(t.TempDir(), "web.tar")
	code, stdout, stderr := run(t, "export", "web-ready", file)
	if code != exitOK || !strings.Contains(stdout, "exported "+e.Digest) {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o600 {
		t.Errorf("the file: %v, %v", info, err)
	}
	if code, _, stderr := run(t, "export", "web-ready", file); code != exitFailed || !strings.Contains(stderr, "it exists") {
		t.Errorf("export over a file: exit code %d: %s", code, stderr)
	}
	_, piped, _ := run(t, "export", "web-ready", "-")
	if content, err := os.ReadFile(file); err != nil || piped != string(content) {
		t.Errorf("%d bytes to the pipe, %d to the file (%v)", len(piped), len(content), err)
	}

	st := node(t)
	for args, says := range map[string]string{
		"import " + file + " --name Web":       "'W' is not allowed",
		"import " + file + " --replace":        "give --name",
		"import " + file + " --digest 0123456": "hexadecimal digits",
		"import":                               "give one FILE",
		"export web-ready":                     "one REF and one FILE",
		"import /nowhere":                      "no such file",
		"import " + file + " --digest sha256:" + strings.Repeat("0", 64): "was asked for",
	} {
		if code, _, stderr := run(t, strings.Fields(args)...); code == exitOK || !strings.Contains(stderr, says) {
			t.Errorf("%s: exit code %d: %s", args, code, stderr)
		}
	}
	if all, err := st.List(); err != nil || len(all) != 0 {
		t.Errorf("registered: %v, %v", all, err)
	}
	code, stdout, stderr = run(t, "import", file, "--name", "copy", "--digest", e.Digest)
	if code != exitOK || !strings.Contains(stdout, "imported a checkpoint of web") || !strings.Contains(stdout, "ready") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	if got, err := st.Resolve("copy"); err != nil || got.Digest != e.Digest {
		t.Errorf("registered %+v, %v", got, err)
	}
	if code, stdout, stderr = run(t, "import", file, "--json"); code != exitOK || !strings.Contains(stdout, `"digest": "`+e.Digest) {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
}

func TestCreate(t *testing.T) {
	st := node(t)
	path := filepath.Join(t.TempDir(), "s")
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server, err := ttrpc.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	var asked capture.Request
	c := here(t)
	capture.Register(server, func(_ context.Context, r capture.Request) (checkpoint.Entry, error) {
		asked = r
		return fixture.Add(t, st, r.Name, c), nil
	})
	served := make(chan error, 1)
	go func() { served <- server.Serve(context.Background(), l) }()
	t.Cleanup(func() {
		server.Close()
		<-served
	})
	fixture.Start(t, st, "web", func(s *checkpoint.Start) { s.Namespace, s.Address = "k8s.io", "unix://"+path })
	t.Setenv(envNamespace, "k8s.io")

	code, stdout, stderr := run(t, "create", "web", "--name", "web-ready", "--stop")
	if code != exitOK || stderr != "" {
		t.Fatalf("exit code %d, %s", code, stderr)
	}
	if want := (capture.Request{ID: "web", Name: "web-ready", Stop: true}); asked != want {
		t.Errorf("the shim was asked for %+v, want %+v", asked, want)
	}
	for _, want := range []string{"captured web; it was stopped", "web-ready", "sha256:", "586 KiB", "331 ms"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q in\n%s", want, stdout)
		}
	}

	c.CreatedAt = c.CreatedAt.Add(time.Minute)
	code, stdout, stderr = run(t, "create", "-n", "k8s.io", "web", "--json")
	if code != exitOK || stderr != "" {
		t.Fatalf("exit code %d, %s", code, stderr)
	}
	var e checkpoint.Entry
	if err := json.Unmarshal([]byte(stdout), &e); err != nil {
		t.Fatal(err)
	}
	if _, err := st.Resolve(e.Digest); err != nil || e.Checkpoint.Source.Container != "web" {
		t.Errorf("printed %+v, which is registered: %v", e, err)
	}
}

func TestRemove(t *testing.T) {
	st := node(t)
	fixture.Add(t, st, "one", here(t))
	c := here(t)
	c.CreatedAt = c.CreatedAt.Add(time.Minute)
	held := fixture.Add(t, st, "held", c)
	c.CreatedAt = c.CreatedAt.Add(time.Minute)
	damaged := fixture.Add(t, st, "damaged", c)
	fixture.Damage(t, damaged, "manifest.json")
	release, err := st.Hold(held.Digest)
	if err != nil {
		t.Fatal(err)
	}
	defer release()

	if code, _, stderr := run(t, "ls", "--json"); code != exitOK || !strings.Contains(stderr, "left out 1 checkpoint that cannot be read") {
		t.Errorf("ls --json: exit code %d, %q", code, stderr)
	}
	code, stdout, stderr := run(t, "rm", "absent", "one", "held", damaged.Digest)
	if want := "removed one\nremoved " + damaged.Digest[:len("sha256:")+12] + "\n"; code != exitFailed || stdout != want {
		t.Errorf("exit code %d, stdout %q, want %q", code, stdout, want)
	}
	lines := strings.Split(strings.TrimSuffix(stderr, "\n"), "\n")
	if len(lines) != 2 || !strings.HasPrefix(lines[0], "snapctl: resolve \"absent\"") || !strings.Contains(lines[1], "in use") || !strings.HasPrefix(lines[1], "snapctl: ") {
		t.Errorf("stderr is %q", lines)
	}
	release()
	if code, stdout, stderr := run(t, "rm", "held"); code != exitOK || stdout != "removed held\n" || stderr != "" {
		t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
	}
	if empty, err := st.Empty(); err != nil || !empty {
		t.Errorf("something is left: %v, %v", empty, err)
	}
}

func TestRemoveJSON(t *testing.T) {
	st := node(t)
	e := fixture.Add(t, st, "one", here(t))
	code, stdout, _ := run(t, "rm", "--json", "absent", "one")
	var all []struct {
		Ref, Digest, Error string
		Done               bool
	}
	if err := json.Unmarshal([]byte(stdout), &all); err != nil || code != exitFailed || len(all) != 2 {
		t.Fatalf("exit code %d, %v: %q", code, err, stdout)
	}
	if all[0].Ref != "absent" || all[0].Done || all[0].Error == "" {
		t.Errorf("the absent one: %+v", all[0])
	}
	if all[1].Ref != "one" || !all[1].Done || all[1].Digest != e.Digest || all[1].Error != "" {
		t.Errorf("the removed one: %+v", all[1])
	}
	if _, err := st.Resolve(e.Digest); !errors.Is(err, checkpoint.ErrNotFound) {
		t.Errorf("after rm: %v", err)
	}
}

func TestRemoveInterrupted(t *testing.T) {
	st := node(t)
	e := fixture.Add(t, st, "one", here(t))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errs bytes.Buffer
	code := Main(ctx, Env{Args: []string{"rm", "one"}, Stdout: &out, Stderr: &errs, Now: time.Now})
	if code != exitFailed || out.Len() > 0 || !strings.Contains(errs.String(), "interrupted") {
		t.Errorf("exit code %d, %q, %q", code, out.String(), errs.String())
	}
	if _, err := st.Resolve(e.Digest); err != nil {
		t.Error(err)
	}
}

func TestClear(t *testing.T) {
	st := node(t)
	e := fixture.Add(t, st, "one", here(t))
	fixture.Fail(t, st, e, checkpoint.QuarantineAfter)
	if _, stdout, _ := run(t, "ls"); !strings.Contains(stdout, "quarantined") {
		t.Errorf("not quarantined:\n%s", stdout)
	}
	if code, stdout, stderr := run(t, "clear", "one"); code != exitOK || stdout != "cleared one: it is chosen again where it fits\n" {
		t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
	}
	if e, err := st.Resolve("one"); err != nil || e.State.Failures != 0 {
		t.Errorf("%+v, %v", e.State, err)
	}
	if code, stdout, _ := run(t, "clear", "one"); code != exitOK || stdout != "one has no failures\n" {
		t.Errorf("exit code %d, %q", code, stdout)
	}
}

func TestDoctor(t *testing.T) {
	st := node(t)
	e := fixture.Add(t, st, "one", here(t))
	code, stdout, stderr := run(t, "doctor", "--json")
	var result struct {
		OK     bool
		Checks []map[string]string
	}
	if err := json.Unmarshal([]byte(stdout), &result); err != nil {
		t.Fatal(err)
	}
	if code != exitOK || !result.OK || stderr != "" || len(result.Checks) < 8 {
		t.Errorf("exit code %d, %q\n%s", code, stderr, stdout)
	}
	fixture.Damage(t, e, "images/pages-1.img")
	if code, stdout, _ := run(t, "doctor"); code != exitOK || !strings.Contains(stdout, "✓ checkpoints     1 ready") {
		t.Errorf("exit code %d\n%s", code, stdout)
	}
	code, stdout, stderr = run(t, "doctor", "--verify")
	if code != exitFailed || !strings.Contains(stdout, "✗ checkpoint ") || stderr != "snapctl: found 1 problem\n" {
		t.Errorf("exit code %d, %q\n%s", code, stderr, stdout)
	}
}

func TestStatusWithoutCRIU(t *testing.T) {
	st := node(t)
	fixture.Add(t, st, "one", here(t))
	t.Setenv("PATH", t.TempDir())
	if code, stdout, _ := run(t, "ls"); code != exitOK || !strings.Contains(stdout, " ready\n") {
		t.Errorf("an operator without CRIU in PATH sees\n%s", stdout)
	}
	write(t, filepath.Join(os.Getenv("PATH"), "criu"), "#!/bin/sh\nexit 1\n", 0o755)
	if code, stdout, _ := run(t, "ls"); code != exitOK || !strings.Contains(stdout, " ready\n") {
		t.Errorf("an operator with a broken CRIU in PATH sees\n%s", stdout)
	}
}

func TestBadConfiguration(t *testing.T) {
	node(t)
	write(t, os.Getenv(config.EnvFile), "rot = \"/x\"\n", 0o600)
	for _, args := range [][]string{{"ls"}, {"doctor", "x"}, {"rm", "x"}, {"create", "x"}, {"explain", "x"}, {"inspect", "x"}} {
		if code, _, stderr := run(t, args...); code != exitFailed || !strings.Contains(stderr, "unknown key") {
			t.Errorf("%v: exit code %d, %q", args, code, stderr)
		}
	}
	if code, stdout, stderr := run(t, "doctor"); code != exitFailed || !strings.Contains(stdout, "✗ configuration   ") || !strings.Contains(stdout, "unknown key") || stderr != "snapctl: found 1 problem\n" {
		t.Errorf("doctor: exit code %d, %q\n%s", code, stderr, stdout)
	}
	if _, stdout, _ := run(t, "__complete", "inspect", ""); stdout != ":4\n" {
		t.Errorf("completion offers %q", stdout)
	}
}

// TestHelp holds that every command is documented, and that no line is too long for
// a terminal.
func TestHelp(t *testing.T) {
	a := &app{}
	for _, cmd := range append(a.command().Commands(), a.command()) {
		if cmd.Short == "" || cmd.Name() != "version" && (cmd.Long == "" || cmd.Example == "") {
			t.Errorf("%s lacks a description or an example", cmd.Name())
		}
		for line := range strings.SplitSeq(cmd.Long+"\n"+cmd.Example, "\n") {
			if len(line) > 92 {
				t.Errorf("%s: this line of the help is %d characters long: %s", cmd.Name(), len(line), line)
			}
		}
	}
}

func TestReading(t *testing.T) {
	var r reading
	if got := r.line(2500 * time.Millisecond); got != "checking: 2s" {
		t.Errorf("line = %q", got)
	}
	r.set("web-ready", 1<<20, 3<<20)
	if got := r.line(time.Minute); got != "verifying web-ready: 1m0s, 1.00 MiB of 3.00 MiB" {
		t.Errorf("line = %q", got)
	}
}

func write(t *testing.T, path, content string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
}

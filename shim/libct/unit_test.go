package libct

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/utils"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func itoa(n int) string { return strconv.Itoa(n) }

func TestMergeResources(t *testing.T) {
	for name, c := range map[string]struct{ base, update, want string }{
		"large numbers":         {`{"memory":{"limit":9223372036854775807}}`, `{"cpu":{"shares":18446744073709551615}}`, `{"memory":{"limit":9223372036854775807},"cpu":{"shares":18446744073709551615}}`},
		"nothing":               {`{}`, `{}`, `{}`},
		"onto nothing":          {`{}`, `{"pids":{"limit":5}}`, `{"pids":{"limit":5}}`},
		"left out":              {`{"pids":{"limit":5},"cpu":{"shares":2}}`, `{"cpu":{"quota":7}}`, `{"pids":{"limit":5},"cpu":{"shares":2,"quota":7}}`},
		"replaced":              {`{"memory":{"limit":1,"swap":2}}`, `{"memory":{"limit":3}}`, `{"memory":{"limit":3,"swap":2}}`},
		"unlimited":             {`{"memory":{"limit":1,"swap":2}}`, `{"memory":{"limit":-1}}`, `{"memory":{"limit":-1,"swap":0}}`},
		"unlimited, with swap":  {`{"memory":{"limit":1}}`, `{"memory":{"limit":-1,"swap":-1}}`, `{"memory":{"limit":-1,"swap":-1}}`},
		"idle":                  {`{}`, `{"cpu":{"idle":1}}`, `{"cpu":{"shares":0,"idle":1}}`},
		"idle with shares":      {`{"cpu":{"shares":9}}`, `{"cpu":{"idle":1}}`, `{"cpu":{"shares":9,"idle":1}}`},
		"unified":               {`{"unified":{"a":"1","b":"2"}}`, `{"unified":{"b":"3"}}`, `{"unified":{"a":"1","b":"3"}}`},
		"a list is replaced":    {`{"hugepageLimits":[{"pageSize":"2MB","limit":1},{"pageSize":"1GB","limit":2}]}`, `{"hugepageLimits":[{"pageSize":"1GB","limit":3}]}`, `{"hugepageLimits":[{"pageSize":"1GB","limit":3}]}`},
		"an element is its own": {`{"blockIO":{"weightDevice":[{"major":8,"minor":1,"weight":5,"leafWeight":6}]}}`, `{"blockIO":{"weightDevice":[{"major":8,"minor":2,"weight":7}]}}`, `{"blockIO":{"weightDevice":[{"major":8,"minor":2,"weight":7}]}}`},
	} {
		var base, update, want specs.LinuxResources
		must(t, json.Unmarshal([]byte(c.base), &base))
		must(t, json.Unmarshal([]byte(c.update), &update))
		must(t, json.Unmarshal([]byte(c.want), &want))
		got, err := mergeResources(base, &update)
		must(t, err)
		if !reflect.DeepEqual(got, want) {
			text, _ := json.Marshal(got)
			t.Errorf("%s: %s, want %s", name, text, c.want)
		}
		var before specs.LinuxResources
		must(t, json.Unmarshal([]byte(c.base), &before))
		if !reflect.DeepEqual(base, before) {
			t.Errorf("%s: the base became %+v", name, base)
		}
	}
}

func TestRlimits(t *testing.T) {
	if len(rlimits) != 16 {
		t.Errorf("the kernel has 16 limits, the table %d", len(rlimits))
	}
	seen := make(map[int]string)
	for name, n := range rlimits {
		if other, ok := seen[n]; ok {
			t.Errorf("%s and %s are both %d", name, other, n)
		}
		seen[n] = name
		got, err := rlimit(specs.POSIXRlimit{Type: name, Soft: 1, Hard: 2})
		if err != nil || got != (configs.Rlimit{Type: n, Soft: 1, Hard: 2}) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	for _, name := range []string{"", "NOFILE", "rlimit_nofile", "RLIMIT_X"} {
		if _, err := rlimit(specs.POSIXRlimit{Type: name}); err == nil || !strings.Contains(err.Error(), strconv.Quote(name)) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestProcess(t *testing.T) {
	p := &specs.Process{
		Args: []string{"a"}, Env: []string{"K=v"}, Cwd: "/w",
		User:            specs.User{UID: 1, GID: 2, AdditionalGids: []uint32{3, 4}},
		Capabilities:    &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL"}, Ambient: []string{"CAP_CHOWN"}},
		Rlimits:         []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 5, Hard: 6}},
		ConsoleSize:     &specs.Box{Width: 80, Height: 24},
		NoNewPrivileges: true,
		ApparmorProfile: "aa",
		SelinuxLabel:    "se",
	}
	files := Files{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Console: os.Stderr}
	lp, err := process(p, files)
	must(t, err)
	if lp.UID != 1 || lp.GID != 2 || !reflect.DeepEqual(lp.AdditionalGroups, []int{3, 4}) || lp.Cwd != "/w" || lp.ConsoleWidth != 80 ||
		lp.ConsoleHeight != 24 || !*lp.NoNewPrivileges || lp.AppArmorProfile != "aa" || lp.Label != "se" || len(lp.Rlimits) != 1 ||
		lp.Capabilities.Bounding[0] != "CAP_KILL" || lp.Capabilities.Ambient[0] != "CAP_CHOWN" {
		t.Errorf("%+v", lp)
	}
	if lp.Stdout != os.Stdout || lp.ConsoleSocket != nil {
		t.Error("a process without a terminal got one")
	}
	p.Terminal = true
	lp, err = process(p, files)
	must(t, err)
	if lp.Stdin != nil || lp.Stdout != nil || lp.Stderr != nil || lp.ConsoleSocket != os.Stderr {
		t.Error("a process with a terminal got pipes")
	}
}

// The bundle's path is told to hooks as it is, whatever the working directory is,
// and annotations as the user has them. CRIU's configuration is ours while CRIU is called.
func TestConfigLabels(t *testing.T) {
	b := newBundle(t, "true")
	b.spec.OCI.Annotations = map[string]string{criuConfigLabel: "/users/own.conf", "keep": "me"}
	cfg, err := b.spec.config()
	must(t, err)
	want := func(when, conf string) {
		t.Helper()
		bundle, annotations := utils.Annotations(cfg.Labels)
		if bundle != b.spec.Bundle || !reflect.DeepEqual(annotations, b.spec.OCI.Annotations) {
			t.Errorf("%s hooks are told %s, %v", when, bundle, annotations)
		}
		if got, _ := utils.SearchLabels(cfg.Labels, criuConfigLabel); got != conf {
			t.Errorf("%s CRIU is told %q, want %q", when, got, conf)
		}
	}
	want("at first", "/users/own.conf")
	b.spec.nameCRIUConfig(cfg.Labels)
	want("during a call", b.spec.Bundle+"/"+CRIUConfigFile)
	b.spec.forgetCRIUConfig(cfg.Labels)
	want("afterwards", "/users/own.conf")
}

func TestJoin(t *testing.T) {
	b := newBundle(t, "true")
	b.spec.NetNS, b.spec.UTSNS = "/proc/1/ns/net", "/proc/1/ns/uts"
	cfg, err := b.spec.config()
	must(t, err)
	if cfg.Namespaces.PathOf(configs.NEWNET) != b.spec.NetNS || cfg.Namespaces.PathOf(configs.NEWUTS) != b.spec.UTSNS || cfg.Networks != nil {
		t.Errorf("%+v %+v", cfg.Namespaces, cfg.Networks)
	}
	// A namespace that the spec names stays, and one that it does not want does not come.
	for i, ns := range b.spec.OCI.Linux.Namespaces {
		if ns.Type == specs.NetworkNamespace {
			b.spec.OCI.Linux.Namespaces[i].Path = "/proc/self/ns/net"
		}
	}
	cfg, err = b.spec.config()
	must(t, err)
	if got := cfg.Namespaces.PathOf(configs.NEWNET); got != "/proc/self/ns/net" {
		t.Errorf("network namespace %s", got)
	}
}

func TestSysctlPath(t *testing.T) {
	for key, want := range map[string]string{
		"net.ipv4.ip_forward":          "net/ipv4/ip_forward",
		"net/ipv4/conf/eth0.1/rp_fil":  "net/ipv4/conf/eth0.1/rp_fil",
		"net.ipv4.conf.eth0/1.rp_filt": "net/ipv4/conf/eth0.1/rp_filt",
		"single":                       "single",
	} {
		if got := sysctlPath(key); got != want {
			t.Errorf("%s: %s, want %s", key, got, want)
		}
	}
}

// TestForeignSysctls: what is not the container's is not set, even where libcontainer would
// refuse the container only later.
func TestForeignSysctls(t *testing.T) {
	const forward = "net.ipv4.ip_forward"
	before, err := os.ReadFile("/proc/sys/" + sysctlPath(forward))
	must(t, err)
	own := specs.LinuxNamespace{Type: specs.NetworkNamespace}
	node := specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: "/proc/self/ns/net"}
	for key, c := range map[string]struct {
		in   specs.LinuxNamespace
		says string
	}{
		"net/../kernel/core_pattern":       {own, "not the plain name"},
		"net/ipv4/../../kernel/panic":      {own, "not the plain name"},
		"net//ipv4/ip_forward":             {own, "not the plain name"},
		forward:                            {node, "of the node"},
		"net.ipv4.conf.default.forwarding": {specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: "/nowhere"}, "look at"},
	} {
		s := &specs.Spec{Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{c.in}, Sysctl: map[string]string{key: "1"}}}
		n, err := NewNamespaces(s)
		if err == nil {
			must(t, n.Close())
		}
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s in %q: %v, want an error that says %q", key, c.in.Path, err, c.says)
		}
	}
	if after, err := os.ReadFile("/proc/sys/" + sysctlPath(forward)); err != nil || !bytes.Equal(after, before) {
		t.Errorf("%s is %q and was %q: %v", forward, after, before, err)
	}
}

func TestFeatures(t *testing.T) {
	f := Features()
	if f.OCIVersionMax != specs.Version || len(f.Hooks) == 0 || len(f.MountOptions) == 0 || len(f.Linux.Namespaces) < 7 || len(f.Linux.Capabilities) == 0 {
		t.Errorf("%+v", f)
	}
	if f.Linux.Seccomp == nil || !*f.Linux.Seccomp.Enabled || len(f.Linux.Seccomp.Actions) == 0 {
		t.Error("no seccomp: build with the tag seccomp")
	}
	if _, err := json.Marshal(f); err != nil {
		t.Error(err)
	}
}

// reap takes the dead first processes of pid namespaces for which nobody
// waits, and no one else's child.
func TestReap(t *testing.T) {
	start := func(flags uintptr) *exec.Cmd {
		cmd := exec.Command("/bin/true")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
		must(t, cmd.Start())
		// Dead, but not waited for.
		must(t, unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil))
		return cmd
	}
	ordinary, abandoned, ours := start(0), start(unix.CLONE_NEWPID), start(unix.CLONE_NEWPID)
	waitedFor.Store(ours.Process.Pid, struct{}{})
	defer waitedFor.Delete(ours.Process.Pid)
	reap(0)
	for what, cmd := range map[string]*exec.Cmd{"an ordinary child": ordinary, "a process that is waited for": ours} {
		if err := cmd.Wait(); err != nil {
			t.Errorf("reap took %s: %v", what, err)
		}
	}
	if err := abandoned.Wait(); err == nil {
		t.Error("reap left an abandoned process")
	}
	known := start(0)
	reap(known.Process.Pid)
	if err := known.Wait(); err == nil {
		t.Error("reap left a process that it was told of")
	}
	// What is not our child, or not there, is not waited for.
	reap(1)
	reap(1 << 30)
}

package spec

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestFingerprintGolden(t *testing.T) {
	config, err := os.ReadFile("testdata/cri.json")
	if err != nil {
		t.Fatal(err)
	}
	s, err := Load(bundle(t, string(config)))
	if err != nil {
		t.Fatal(err)
	}
	f := Fingerprint(s, "sha256:chain")
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(f)) {
		fmt.Fprintf(&b, "%s = %s\n", name, f[name])
	}
	fmt.Fprintf(&b, "\nkey %s\n", f.Key())
	const golden = "testdata/cri.fingerprint"
	if *update {
		if err := os.WriteFile(golden, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("fingerprint is\n%s\nwant\n%s\nA change makes every registered checkpoint unfit; if it is meant, run with -update.", &b, want)
	}
	for _, secret := range []string{"s3cr3t", "0a1b", "71c4"} {
		if strings.Contains(b.String(), secret) {
			t.Errorf("the fingerprint holds %q", secret)
		}
	}
}

// TestFingerprintIgnoresOrder shuffles everything whose order means nothing.
func TestFingerprintIgnoresOrder(t *testing.T) {
	want := Fingerprint(full(), "image")
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 0))
		s := full()
		p, c, l := s.Process, s.Process.Capabilities, s.Linux
		for _, v := range [][]string{
			p.Env, c.Bounding, c.Effective, c.Inheritable, c.Permitted, c.Ambient,
			s.Mounts[0].Options, s.Mounts[1].Options, l.MaskedPaths, l.ReadonlyPaths,
		} {
			shuffle(r, v)
		}
		shuffle(r, p.User.AdditionalGids)
		shuffle(r, p.Rlimits)
		shuffle(r, s.Mounts)
		shuffle(r, l.Namespaces)
		shuffle(r, l.Devices)
		if diff := want.Diff(Fingerprint(s, "image")); len(diff) > 0 {
			t.Fatalf("seed %d: order changes %q", seed, diff)
		}
	}
}

func shuffle[T any](r *rand.Rand, v []T) {
	r.Shuffle(len(v), func(i, j int) { v[i], v[j] = v[j], v[i] })
}

func TestFingerprintLeavesTheSpecAlone(t *testing.T) {
	s := full()
	Fingerprint(s, "image")
	if got := s.Process.User.AdditionalGids; !slices.Equal(got, []uint32{4, 3}) {
		t.Errorf("the groups became %v", got)
	}
	if got := s.Mounts[0].Options; !slices.Equal(got, []string{"nosuid", "mode=755"}) {
		t.Errorf("the options became %q", got)
	}
}

// TestFingerprintNamesTheField expects a change to show in exactly the named fields.
func TestFingerprintNamesTheField(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*specs.Spec)
		fields []string
	}{
		"args split elsewhere":      {func(s *specs.Spec) { s.Process.Args = []string{"a b"} }, []string{"args"}},
		"args in another order":     {func(s *specs.Spec) { s.Process.Args = []string{"b", "a"} }, []string{"args"}},
		"env value":                 {func(s *specs.Spec) { s.Process.Env[0] = "A=2" }, []string{"env.A"}},
		"env gone":                  {func(s *specs.Spec) { s.Process.Env = s.Process.Env[1:] }, []string{"env.A"}},
		"env empty":                 {func(s *specs.Spec) { s.Process.Env[0] = "A=" }, []string{"env.A"}},
		"env without a value":       {func(s *specs.Spec) { s.Process.Env[0] = "A" }, []string{"env.A"}},
		"env overridden":            {func(s *specs.Spec) { s.Process.Env = append(s.Process.Env, "A=9") }, []string{"env.A"}},
		"env repeated":              {func(s *specs.Spec) { s.Process.Env = append(s.Process.Env, "A=1") }, nil},
		"no capabilities":           {func(s *specs.Spec) { *s.Process.Capabilities = specs.LinuxCapabilities{} }, []string{"capabilities.ambient", "capabilities.bounding", "capabilities.effective", "capabilities.inheritable", "capabilities.permitted"}},
		"capability twice":          {func(s *specs.Spec) { c := s.Process.Capabilities; c.Bounding = append(c.Bounding, "CAP_A") }, nil},
		"groups run together":       {func(s *specs.Spec) { s.Process.User.AdditionalGids = []uint32{34} }, []string{"groups"}},
		"default umask":             {func(s *specs.Spec) { s.Process.User.Umask = nil }, []string{"user"}},
		"bind by option":            {func(s *specs.Spec) { s.Mounts[1].Type = "none" }, nil},
		"bind not recursive":        {func(s *specs.Spec) { s.Mounts[1].Options[0] = "bind" }, []string{"mount./data"}},
		"destination unclean":       {func(s *specs.Spec) { s.Mounts[1].Destination = "data/" }, nil},
		"mount gone":                {func(s *specs.Spec) { s.Mounts = s.Mounts[:1] }, []string{"mount./data"}},
		"mount twice":               {func(s *specs.Spec) { s.Mounts = append(s.Mounts, s.Mounts[1]) }, []string{"mount./data"}},
		"namespace by another path": {func(s *specs.Spec) { s.Linux.Namespaces[1].Path = "/other" }, nil},
		"namespace private":         {func(s *specs.Spec) { s.Linux.Namespaces[1].Path = "" }, []string{"namespace.network"}},
		"namespace of the host":     {func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[:1] }, []string{"namespace.network"}},
		"another device default":    {func(s *specs.Spec) { m := os.FileMode(0o666); s.Linux.Devices[1].FileMode = &m }, nil},
		"another hook's arguments":  {func(s *specs.Spec) { s.Hooks.CreateRuntime[0].Args = []string{"x"} }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := full()
			before := Fingerprint(s, "image")
			test.change(s)
			if got := before.Diff(Fingerprint(s, "image")); !slices.Equal(got, test.fields) {
				t.Errorf("fields %q differ, want %q", got, test.fields)
			}
		})
	}
}

// TestFingerprintSeesCoveredMounts: of two mounts, one within the other, the
// order decides whether the inner one is seen.
func TestFingerprintSeesCoveredMounts(t *testing.T) {
	inner, outer := specs.Mount{Destination: "/data/inner", Type: "tmpfs"}, specs.Mount{Destination: "/data", Type: "tmpfs"}
	sibling := specs.Mount{Destination: "/data-2", Type: "tmpfs"}
	seen := Fingerprint(&specs.Spec{Mounts: []specs.Mount{outer, inner, sibling}}, "")
	covered := Fingerprint(&specs.Spec{Mounts: []specs.Mount{sibling, inner, outer}}, "")
	if got := seen.Diff(covered); !slices.Equal(got, []string{"mount./data/inner"}) {
		t.Errorf("fields %q differ, want that of the inner mount", got)
	}
}

func TestFingerprintOfTheImage(t *testing.T) {
	if v, ok := Fingerprint(full(), "")[FieldImage]; ok {
		t.Errorf("the unknown image is %q", v)
	}
	if v := Fingerprint(full(), "chain")[FieldImage]; v != "chain" {
		t.Errorf("the image is %q", v)
	}
	// Umask: what libcontainer takes by default and the same value said are one.
	a, b, umask := full(), full(), uint32(defaultUmask)
	a.Process.User.Umask, b.Process.User.Umask = nil, &umask
	if diff := Fingerprint(a, "").Diff(Fingerprint(b, "")); len(diff) > 0 {
		t.Errorf("fields %q differ", diff)
	}
	// Nothing is needed but the spec itself.
	if f := Fingerprint(&specs.Spec{}, ""); len(f) != 0 {
		t.Errorf("the empty spec has the fields %v", f)
	}
}

func BenchmarkFingerprint(b *testing.B) {
	s := full()
	for i := range 200 {
		s.Process.Env = append(s.Process.Env, fmt.Sprintf("SVC_%d_SERVICE_HOST=10.0.0.1", i), fmt.Sprintf("SVC_%d_SERVICE_PORT=1", i))
	}
	for b.Loop() {
		_ = Fingerprint(s, "image").Key()
	}
}

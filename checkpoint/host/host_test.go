package host

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/match"
)

func TestFeatures(t *testing.T) {
	for _, test := range []struct {
		arch  string
		n     int
		has   []string
		lacks []string
	}{
		{"amd64", 60, []string{"avx512f", "fpu", "sse4_2"}, []string{"second", "vnmi", "spectre_v1"}},
		{"arm64", 17, []string{"asimd", "atomics", "fp"}, []string{"second"}},
		{"riscv64", 0, nil, nil},
	} {
		t.Run(test.arch, func(t *testing.T) {
			got, err := features(filepath.Join("testdata", test.arch+".cpuinfo"), test.arch)
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != test.n || !slices.IsSorted(got) {
				t.Errorf("%d features, want %d, sorted: %q", len(got), test.n, got)
			}
			for _, f := range test.has {
				if !slices.Contains(got, f) {
					t.Errorf("%s is missing", f)
				}
			}
			for _, f := range test.lacks {
				if slices.Contains(got, f) {
					t.Errorf("%s is no feature of the first processor", f)
				}
			}
		})
	}
}

func TestFeaturesFail(t *testing.T) {
	// A file without flags is no answer where the kernel lists them.
	if got, err := features("testdata/riscv64.cpuinfo", "amd64"); !errors.Is(err, errNoFeatures) {
		t.Errorf("features are %q, %v; want errNoFeatures", got, err)
	}
	if _, err := features(filepath.Join(t.TempDir(), "absent"), "amd64"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error is %v, want ErrNotExist", err)
	}
	if _, err := parseFeatures(strings.NewReader(strings.Repeat("x", 2*maxBlock))); err == nil {
		t.Error("an endless line gave features")
	}
}

// TestFeaturesReadTheFirstBlockOnly lets the file break after the first block.
func TestFeaturesReadTheFirstBlockOnly(t *testing.T) {
	broken := errors.New("read too far")
	for name, block := range map[string]string{"with flags": "processor: 0\nflags: b a b\n", "without": "processor: 0\n\n"} {
		r := io.MultiReader(strings.NewReader(block), &failing{broken})
		got, err := parseFeatures(r)
		if errors.Is(err, broken) {
			t.Errorf("%s: read beyond the first block", name)
		}
		if name == "with flags" && !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("%s: features are %q, %v", name, got, err)
		}
	}
}

type failing struct{ err error }

func (f *failing) Read([]byte) (int, error) { return 0, f.err }

func FuzzParseFeatures(f *testing.F) {
	for _, arch := range []string{"amd64", "arm64", "riscv64"} {
		b, err := os.ReadFile(filepath.Join("testdata", arch+".cpuinfo"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte("flags"))
	f.Add([]byte("flags:\n"))
	f.Add([]byte(":\r\n\r\nflags: a"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parseFeatures(bytes.NewReader(b))
		if err != nil && got != nil {
			t.Fatalf("features %q together with %v", got, err)
		}
		for i, feature := range got {
			if len(strings.Fields(feature)) != 1 || strings.TrimSpace(feature) != feature {
				t.Fatalf("feature %q is no word", feature)
			}
			if i > 0 && got[i-1] >= feature {
				t.Fatalf("%q before %q", got[i-1], feature)
			}
		}
	})
}

func TestCgroupVersion(t *testing.T) {
	// Any other file system stands for the tmpfs that v1 has there.
	if got, err := cgroupVersion(t.TempDir()); err != nil || got != "v1" {
		t.Errorf("a plain directory is %q, %v", got, err)
	}
	if _, err := cgroupVersion(filepath.Join(t.TempDir(), "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error is %v, want ErrNotExist", err)
	}
	// A hierarchy of v2 is mounted somewhere on any host with systemd; /proc
	// tells where.
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			if got, err := cgroupVersion(f[1]); err != nil || got != "v2" {
				t.Errorf("%s is %q, %v; want v2", f[1], got, err)
			}
		}
	}
}

func TestFacts(t *testing.T) {
	got, err := Facts(40201)
	if err != nil {
		t.Fatal(err)
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	if got.Arch != runtime.GOARCH || got.CRIU != 40201 || got.Kernel != unix.ByteSliceToString(u.Release[:]) {
		t.Errorf("facts are %+v", got)
	}
	if got.Cgroup != "v1" && got.Cgroup != "v2" {
		t.Errorf("cgroup is %q", got.Cgroup)
	}
	if listsFeatures(runtime.GOARCH) && len(got.CPUFeatures) == 0 {
		t.Error("no CPU features")
	}
	// A checkpoint of this node fits this node.
	fp := checkpoint.Fingerprint{"image": "x"}
	e := checkpoint.Entry{Digest: "sha256:0", Checkpoint: checkpoint.Checkpoint{Fingerprint: fp, Host: got}}
	if d := match.Decide(match.Request{Fingerprint: fp, FreshRootfs: true}, []checkpoint.Entry{e}, got); d.Action != checkpoint.Restore {
		t.Errorf("decision is %+v", d)
	}
}

func BenchmarkFacts(b *testing.B) {
	for b.Loop() {
		if _, err := Facts(40201); err != nil {
			b.Fatal(err)
		}
	}
}

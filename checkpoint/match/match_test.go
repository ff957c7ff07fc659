package match

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/oci/spec"
)

var (
	wanted = checkpoint.Fingerprint{spec.FieldImage: "chain", "args": `["a"]`, "env.A": "1"}
	here   = checkpoint.HostFacts{Arch: "amd64", Kernel: "6.12.9-1-cloud", CPUFeatures: []string{"avx", "avx2", "fpu"}, CRIU: 40201, Cgroup: "v2"}
	epoch  = time.Unix(1_800_000_000, 0)
)

// entry returns a checkpoint that fits wanted here, captured minutes after epoch.
func entry(name string, minutes int) checkpoint.Entry {
	return checkpoint.Entry{
		Digest: fmt.Sprintf("sha256:%064x", minutes+1), Name: name,
		Checkpoint: checkpoint.Checkpoint{
			CreatedAt: epoch.Add(time.Duration(minutes) * time.Minute), Fingerprint: maps.Clone(wanted),
			Host: checkpoint.HostFacts{Arch: "amd64", Kernel: "6.6.0", CPUFeatures: []string{"avx", "fpu"}, CRIU: 40101, Cgroup: "v2"},
		},
	}
}

// defects are all the ways in which a candidate can fail to fit, in the order in
// which they are looked for.
var defects = []struct {
	name  string
	spoil func(*checkpoint.Entry)
	// host is the host that the defect is on; the zero value stands for here.
	host func(*checkpoint.HostFacts)
	want string
	// forgiven says that a checkpoint that was named is restored nevertheless.
	forgiven bool
}{
	{name: "field", spoil: func(e *checkpoint.Entry) { e.Checkpoint.Fingerprint["env.A"] = "2" }, want: "env A differs"},
	{name: "fields", spoil: func(e *checkpoint.Entry) { e.Checkpoint.Fingerprint = checkpoint.Fingerprint{"cwd": "/", "user": "0"} },
		want: "args differ, the working directory differs, env A differs and 2 more"},
	{name: "architecture", spoil: func(e *checkpoint.Entry) { e.Checkpoint.Host.Arch = "arm64" }, want: "the architecture is amd64 here, arm64 at capture"},
	{name: "a feature", spoil: func(e *checkpoint.Entry) { e.Checkpoint.Host.CPUFeatures = []string{"avx", "avx512f"} }, want: "this CPU lacks avx512f"},
	{name: "features", spoil: func(e *checkpoint.Entry) {
		e.Checkpoint.Host.CPUFeatures = []string{"a", "avx", "b", "c", "d", "e", "f", "g"}
	}, want: "this CPU lacks a, b, c, d, e and 2 more"},
	{name: "CRIU", spoil: func(e *checkpoint.Entry) { e.Checkpoint.Host.CRIU = 40300 }, want: "CRIU 4.2.1 is older than at capture (4.3)"},
	{name: "no CRIU", host: func(h *checkpoint.HostFacts) { h.CRIU = 0 }, want: "there is no CRIU on this node"},
	{name: "kernel", spoil: func(e *checkpoint.Entry) { e.Checkpoint.Host.Kernel = "6.18.1" }, want: "kernel 6.12.9-1-cloud is older than at capture (6.18.1)"},
	{name: "kernel's major number", spoil: func(e *checkpoint.Entry) { e.Checkpoint.Host.Kernel = "7.0.0" }, want: "older than at capture (7.0.0)"},
	{name: "odd kernel", spoil: func(e *checkpoint.Entry) { e.Checkpoint.Host.Kernel = "unknown" }, want: `cannot be compared with "unknown"`},
	{name: "cgroup", spoil: func(e *checkpoint.Entry) { e.Checkpoint.Host.Cgroup = "v1" }, want: "cgroups are v2 here, v1 at capture"},
	{name: "quarantine", spoil: func(e *checkpoint.Entry) {
		e.State = checkpoint.State{Failures: 3, LastFailure: "mount /x: no such file"}
	}, want: "quarantined after 3 failed restores: mount /x: no such file; clear it with 'snapctl clear one'", forgiven: true},
	{name: "quarantine without words", spoil: func(e *checkpoint.Entry) { e.State.Failures = 4 },
		want: "quarantined after 4 failed restores; clear it with 'snapctl clear one'", forgiven: true},
}

// TestDecideEveryPolicyAndDefect is exhaustive: each policy, with and without a
// checkpoint that was named, against each defect and none.
func TestDecideEveryPolicyAndDefect(t *testing.T) {
	for _, policy := range []spec.Policy{"", spec.IfPresent, spec.Required, spec.Never} {
		for _, named := range []bool{false, true} {
			decide := func(e checkpoint.Entry, h checkpoint.HostFacts) checkpoint.Decision {
				req := Request{Policy: policy, Fingerprint: wanted, FreshRootfs: true}
				if named {
					req.Demanded = &e
					return Decide(req, nil, h)
				}
				return Decide(req, []checkpoint.Entry{e}, h)
			}
			demanded := policy != spec.Never && (named || policy == spec.Required)
			t.Run(fmt.Sprintf("%s/named=%v/fits", policy, named), func(t *testing.T) {
				d := decide(entry("one", 0), here)
				want := checkpoint.Restore
				if policy == spec.Never {
					want = checkpoint.Boot
				}
				if d.Action != want || d.Demanded != demanded {
					t.Errorf("decision is %+v, want %s, demanded %v", d, want, demanded)
				}
			})
			for _, defect := range defects {
				t.Run(fmt.Sprintf("%s/named=%v/%s", policy, named, defect.name), func(t *testing.T) {
					e, h := entry("one", 0), here
					if defect.spoil != nil {
						defect.spoil(&e)
					}
					if defect.host != nil {
						defect.host(&h)
					}
					d := decide(e, h)
					if d.Demanded != demanded {
						t.Errorf("demanded is %v, want %v", d.Demanded, demanded)
					}
					switch {
					case policy == spec.Never:
						if d.Action != checkpoint.Boot || d.Reason != "restore=Never" || len(d.Verdicts) != 0 {
							t.Errorf("decision is %+v, want a boot by policy", d)
						}
					case named && defect.forgiven:
						if d.Action != checkpoint.Restore || !d.Verdicts[0].Fits {
							t.Errorf("decision is %+v, want a restore of what was named", d)
						}
					default:
						if d.Action != checkpoint.Boot || d.Digest != "" || d.Name != "" {
							t.Errorf("decision is %+v, want a boot", d)
						}
						if !strings.HasPrefix(d.Reason, "checkpoint one does not fit: ") || !strings.Contains(d.Reason, defect.want) {
							t.Errorf("reason is %q, want %q in it", d.Reason, defect.want)
						}
						if len(d.Verdicts) != 1 || d.Verdicts[0].Fits || !strings.Contains(d.Verdicts[0].Reason, defect.want) {
							t.Errorf("verdicts are %+v, want one with %q", d.Verdicts, defect.want)
						}
					}
				})
			}
		}
	}
}

// TestDecideNamesTheFirstDefect gives a candidate every two defects at once.
func TestDecideNamesTheFirstDefect(t *testing.T) {
	order := map[string]int{"field": 0, "architecture": 1, "a feature": 2, "CRIU": 3, "kernel": 4, "cgroup": 5, "quarantine": 6}
	for i, first := range defects {
		for _, second := range defects[i+1:] {
			a, ok := order[first.name]
			b, ok2 := order[second.name]
			if !ok || !ok2 || a >= b {
				continue
			}
			e := entry("one", 0)
			second.spoil(&e)
			first.spoil(&e)
			d := Decide(Request{Fingerprint: wanted, FreshRootfs: true}, []checkpoint.Entry{e}, here)
			if !strings.Contains(d.Reason, first.want) {
				t.Errorf("%s and %s: reason is %q", first.name, second.name, d.Reason)
			}
		}
	}
}

func TestDecideBeforeAnyCandidate(t *testing.T) {
	e := entry("one", 0)
	unknown := checkpoint.Fingerprint{"args": `["a"]`}
	for name, test := range map[string]struct {
		req      Request
		reason   string
		demanded bool
	}{
		"sandbox":                      {Request{Sandbox: true}, "pod sandbox", false},
		"sandbox of a required pod":    {Request{Sandbox: true, Policy: spec.Required, Demanded: &e, Obstacles: []string{"o"}}, "pod sandbox", false},
		"never":                        {Request{Policy: spec.Never, Demanded: &e, Obstacles: []string{"o"}}, "restore=Never", false},
		"obstacle":                     {Request{Obstacles: []string{"it has a user namespace", "b"}}, "it has a user namespace", false},
		"obstacle, required":           {Request{Policy: spec.Required, Obstacles: []string{"o"}}, "o", true},
		"obstacle, named":              {Request{Demanded: &e, Obstacles: []string{"o"}}, "o", true},
		"unknown image":                {Request{Fingerprint: unknown}, "its image is unknown; name a checkpoint to restore from", false},
		"unknown image, required":      {Request{Policy: spec.Required, Fingerprint: unknown}, "its image is unknown; name a checkpoint to restore from", true},
		"no candidates":                {Request{Fingerprint: wanted}, "no registered checkpoint with this fingerprint", false},
		"no candidates, required":      {Request{Policy: spec.Required, Fingerprint: wanted}, "no registered checkpoint with this fingerprint", true},
		"obstacle and unknown image":   {Request{Obstacles: []string{"o"}}, "o", false},
		"no candidates, used rootfs":   {Request{Fingerprint: wanted, FreshRootfs: false}, "no registered checkpoint with this fingerprint", false},
		"nothing known of the request": {Request{}, "its image is unknown; name a checkpoint to restore from", false},
	} {
		t.Run(name, func(t *testing.T) {
			d := Decide(test.req, nil, here)
			if d.Action != checkpoint.Boot || d.Reason != test.reason || d.Demanded != test.demanded || len(d.Verdicts) != 0 {
				t.Errorf("decision is %+v, want a boot, %q, demanded %v", d, test.reason, test.demanded)
			}
		})
	}
}

func TestDecideAmongSeveral(t *testing.T) {
	old, newest, nameless := entry("old", 1), entry("newest", 3), entry("", 2)
	twinA, twinB := entry("a", 5), entry("b", 5)
	twinB.Digest = "sha256:ff"
	foreign, sick := entry("foreign", 9), entry("sick", 8)
	foreign.Checkpoint.Host.Arch = "arm64"
	sick.State.Failures = checkpoint.QuarantineAfter
	for name, test := range map[string]struct {
		candidates []checkpoint.Entry
		digest     string
		reason     string
	}{
		"newest":               {[]checkpoint.Entry{old, newest, nameless}, newest.Digest, "checkpoint newest fits"},
		"in another order":     {[]checkpoint.Entry{newest, nameless, old}, newest.Digest, "checkpoint newest fits"},
		"by digest":            {[]checkpoint.Entry{nameless, old}, nameless.Digest, "checkpoint sha256:000000000000 fits"},
		"equally old":          {[]checkpoint.Entry{twinB, twinA}, twinB.Digest, "checkpoint b fits"},
		"equally old, turned":  {[]checkpoint.Entry{twinA, twinB}, twinB.Digest, "checkpoint b fits"},
		"newer ones are unfit": {[]checkpoint.Entry{foreign, old, sick}, old.Digest, "checkpoint old fits"},
		"the nearest is named": {[]checkpoint.Entry{foreign, sick}, "", "checkpoint sick does not fit: quarantined after 3 failed restores; clear it with 'snapctl clear sick' (the nearest of 2)"},
	} {
		t.Run(name, func(t *testing.T) {
			d := Decide(Request{Fingerprint: wanted, FreshRootfs: true}, test.candidates, here)
			if d.Digest != test.digest || d.Reason != test.reason {
				t.Errorf("decision is %q because %q, want %q because %q", d.Digest, d.Reason, test.digest, test.reason)
			}
			if len(d.Verdicts) != len(test.candidates) {
				t.Fatalf("%d verdicts on %d candidates", len(d.Verdicts), len(test.candidates))
			}
			for i, v := range d.Verdicts {
				if e := test.candidates[i]; v.Digest != e.Digest || v.Name != e.Name || v.Fits != (v.Reason == "") {
					t.Errorf("verdict %d is %+v on %s", i, v, e.Digest)
				}
			}
		})
	}
}

func TestDecideWithANamedCheckpoint(t *testing.T) {
	named := entry("named", 0)
	d := Decide(Request{Fingerprint: wanted, FreshRootfs: true, Demanded: &named}, []checkpoint.Entry{entry("newer", 1)}, here)
	if d.Digest != named.Digest || d.Name != "named" || !d.Demanded || d.Reason != "checkpoint named was asked for and fits" {
		t.Errorf("decision is %+v, want the one that was named", d)
	}
	if len(d.Verdicts) != 1 || d.Verdicts[0].Digest != named.Digest {
		t.Errorf("verdicts are %+v, want only that on the one that was named", d.Verdicts)
	}
	// Who names a checkpoint vouches for an image that nobody can identify.
	unknown := checkpoint.Fingerprint{"args": `["a"]`}
	named.Checkpoint.Fingerprint = unknown
	if d := Decide(Request{Fingerprint: unknown, FreshRootfs: true, Demanded: &named}, nil, here); d.Action != checkpoint.Restore {
		t.Errorf("decision is %+v, want a restore", d)
	}
}

func TestDecideWithAUsedRootfs(t *testing.T) {
	e := entry("one", 0)
	for _, req := range []Request{{}, {Policy: spec.Required}, {Demanded: &e}} {
		req.Fingerprint = wanted
		d := Decide(req, []checkpoint.Entry{e}, here)
		if d.Action != checkpoint.Boot || !strings.Contains(d.Reason, "writable layer") || d.Digest != "" {
			t.Errorf("decision is %+v, want a boot because of the writable layer", d)
		}
		if want := req.Policy != "" || req.Demanded != nil; d.Demanded != want {
			t.Errorf("demanded is %v, want %v", d.Demanded, want)
		}
	}
}

func TestDecideLeavesItsArgumentsAlone(t *testing.T) {
	candidates := []checkpoint.Entry{entry("b", 2), entry("a", 1)}
	fp := maps.Clone(wanted)
	Decide(Request{Fingerprint: fp, FreshRootfs: true}, candidates, here)
	Nearest(checkpoint.Fingerprint{}, candidates, 2)
	if !maps.Equal(fp, wanted) || candidates[0].Name != "b" || !maps.Equal(candidates[0].Checkpoint.Fingerprint, wanted) {
		t.Error("an argument was changed")
	}
}

func TestKernelVersion(t *testing.T) {
	for release, want := range map[string]string{
		"6.18.4-1-cloud": "6.18 true", "6.6-rc1": "6.6 true", "5.10": "5.10 true", "4.18.0-553.el8_10.x86_64": "4.18 true", "10.0.1+": "10.0 true",
		"": "0.0 false", "6": "0.0 false", "6.": "0.0 false", "x.1": "0.0 false", "-6.1": "0.0 false", "6.x": "0.0 false",
	} {
		major, minor, ok := kernelVersion(release)
		if !ok {
			major, minor = 0, 0
		}
		if got := fmt.Sprintf("%d.%d %v", major, minor, ok); got != want {
			t.Errorf("kernelVersion(%q) is %s, want %s", release, got, want)
		}
	}
}

func TestKernelsThatFit(t *testing.T) {
	for _, test := range []struct {
		here, was string
		fits      bool
	}{
		{"6.12.1", "6.12.99", true}, // stable updates add no interfaces
		{"6.12.1", "6.9.0", true},   // numbers, not text
		{"6.9.0", "6.12.0", false},
		{"10.0", "6.12", true},
		{"5.99", "6.0", false},
		{"odd", "odd", true}, // the same kernel, whatever its name
		{"odd", "6.1", false},
	} {
		h, e := here, entry("one", 0)
		h.Kernel, e.Checkpoint.Host.Kernel = test.here, test.was
		d := Decide(Request{Fingerprint: wanted, FreshRootfs: true}, []checkpoint.Entry{e}, h)
		if got := d.Action == checkpoint.Restore; got != test.fits {
			t.Errorf("captured on %s, here %s: %+v", test.was, test.here, d)
		}
	}
}

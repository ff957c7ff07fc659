package match

import (
	"slices"
	"testing"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/oci/spec"
)

// FuzzDecide composes requests, candidates and hosts from bytes, and holds every
// decision against a second, simpler reading of the rules.
func FuzzDecide(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{1, 1, 0, 0, 1, 0, 0, 1, 2, 3, 1, 1, 1, 0, 0, 1, 0, 4, 4, 4, 2, 1, 9, 9})
	f.Add([]byte{2, 0, 0, 0, 1, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		// next takes the next byte, as a number below n.
		next := func(n int) int {
			if len(data) == 0 {
				return 0
			}
			b := data[0]
			data = data[1:]
			return int(b) % n
		}
		host := func() checkpoint.HostFacts {
			return checkpoint.HostFacts{
				Arch:        []string{"amd64", "arm64"}[next(2)],
				CPUFeatures: [][]string{nil, {"a"}, {"b"}, {"a", "b"}}[next(4)],
				CRIU:        []int{40101, 40201, 0}[next(3)],
				Kernel:      []string{"6.1.0", "6.12.0", "6.9.9", "5.15.2", "odd"}[next(5)],
				Cgroup:      []string{"v2", "v1"}[next(2)],
			}
		}
		fingerprint := func() checkpoint.Fingerprint {
			return []checkpoint.Fingerprint{wanted, {}, {"args": "x"}, {spec.FieldImage: "chain"}}[next(4)]
		}
		req := Request{
			Policy:      []spec.Policy{spec.IfPresent, spec.Required, spec.Never, ""}[next(4)],
			Sandbox:     next(8) == 1,
			FreshRootfs: next(4) != 1,
			Fingerprint: fingerprint(),
		}
		if next(8) == 1 {
			req.Obstacles = []string{"obstacle"}
		}
		here := host()
		var candidates []checkpoint.Entry
		for i := range next(5) {
			e := entry("", i)
			e.Checkpoint.CreatedAt = epoch.AddDate(0, 0, next(3))
			e.Checkpoint.Fingerprint, e.Checkpoint.Host, e.State.Failures = fingerprint(), host(), next(5)
			candidates = append(candidates, e)
		}
		considered := candidates
		if len(candidates) > 0 && next(3) == 1 {
			req.Demanded = &candidates[0]
			considered = candidates[:1]
		}

		d := Decide(req, candidates, here)

		if d.Reason == "" {
			t.Fatal("no reason")
		}
		demanded := !req.Sandbox && req.Policy != spec.Never && (req.Policy == spec.Required || req.Demanded != nil)
		if d.Demanded != demanded {
			t.Fatalf("demanded is %v in %+v", d.Demanded, d)
		}
		allowed := !req.Sandbox && req.Policy != spec.Never && len(req.Obstacles) == 0 &&
			(req.Fingerprint[spec.FieldImage] != "" || req.Demanded != nil)
		var best *checkpoint.Entry
		for i, e := range considered {
			if allowed && fits(req, e, here) && (best == nil || newer(e, *best)) {
				best = &considered[i]
			}
		}
		switch {
		case best == nil && (d.Action != checkpoint.Boot || d.Digest != ""):
			t.Fatalf("nothing fits, and the decision is %+v", d)
		case best != nil && (d.Action != checkpoint.Restore || d.Digest != best.Digest):
			t.Fatalf("%s fits, and the decision is %+v", best.Digest, d)
		}
		for _, v := range d.Verdicts {
			i := slices.IndexFunc(considered, func(e checkpoint.Entry) bool { return e.Digest == v.Digest })
			if i < 0 || v.Fits != fits(req, considered[i], here) || v.Fits != (v.Reason == "") {
				t.Fatalf("verdict %+v", v)
			}
		}
	})
}

// fits says whether a checkpoint fits, by the rules as they are written down.
func fits(req Request, e checkpoint.Entry, here checkpoint.HostFacts) bool {
	// The kernels of the test from old to new; "odd" is comparable with itself only.
	age := func(kernel string) int { return slices.Index([]string{"5.15.2", "6.1.0", "6.9.9", "6.12.0"}, kernel) }
	was := e.Checkpoint.Host
	for _, feature := range was.CPUFeatures {
		if !slices.Contains(here.CPUFeatures, feature) {
			return false
		}
	}
	sameKernel := was.Kernel == here.Kernel
	newerKernel := age(was.Kernel) >= 0 && age(here.Kernel) >= age(was.Kernel)
	return e.Checkpoint.Fingerprint.Key() == req.Fingerprint.Key() &&
		req.FreshRootfs && // they are templates
		was.Arch == here.Arch &&
		here.CRIU > 0 && was.CRIU <= here.CRIU &&
		(sameKernel || newerKernel) &&
		was.Cgroup == here.Cgroup &&
		(req.Demanded != nil || e.State.Failures < checkpoint.QuarantineAfter)
}

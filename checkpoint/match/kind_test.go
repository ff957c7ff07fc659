package match

import (
	"strings"
	"testing"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/oci/spec"
)

// point is a resume point of an owner, minutes after the first checkpoint.
func point(name, owner string, minutes int) checkpoint.Entry {
	e := entry(name, minutes)
	e.Checkpoint.Kind, e.Checkpoint.Owner = checkpoint.ResumePoint, owner
	return e
}

func TestDecideBetweenTheKinds(t *testing.T) {
	const me, other = "ns/container/me", "ns/container/other"
	template, retaken := entry("template", 2), entry("retaken", 8)
	old, latest, foreign := point("old", me, 1), point("latest", me, 5), point("foreign", other, 9)
	changed := point("changed", me, 6)
	changed.Checkpoint.Fingerprint = checkpoint.Fingerprint{spec.FieldImage: "another"}
	sick := point("sick", me, 7)
	sick.State.Failures = checkpoint.QuarantineAfter
	for name, test := range map[string]struct {
		candidates []checkpoint.Entry
		written    bool
		failed     map[string]string
		missing    map[string]string
		demanded   *checkpoint.Entry
		want       string // the name of what is restored; empty for a boot
		reason     string
	}{
		"its newest resume point":                   {candidates: []checkpoint.Entry{old, latest}, want: "latest", reason: "resume point latest fits"},
		"also over a layer that was written to":     {candidates: []checkpoint.Entry{old, latest}, written: true, want: "latest"},
		"rather than an older template":             {candidates: []checkpoint.Entry{template, latest}, want: "latest"},
		"a template that is newer":                  {candidates: []checkpoint.Entry{retaken, latest}, want: "retaken"},
		"not over a layer that was written to":      {candidates: []checkpoint.Entry{retaken, latest}, written: true, want: "latest"},
		"never another's":                           {candidates: []checkpoint.Entry{foreign}, reason: "it is a resume point of ns/container/other, and this container is ns/container/me"},
		"another's is in nobody's way":              {candidates: []checkpoint.Entry{foreign, template}, want: "template"},
		"not with another fingerprint":              {candidates: []checkpoint.Entry{changed}, reason: "resume point changed does not fit: args differ"},
		"nor a template in its place":               {candidates: []checkpoint.Entry{changed, template}, reason: "resume point changed does not fit: args differ"},
		"but the one before it":                     {candidates: []checkpoint.Entry{changed, latest}, want: "latest"},
		"the one before one in quarantine":          {candidates: []checkpoint.Entry{sick, latest, template}, want: "latest"},
		"a template is no way around a quarantine":  {candidates: []checkpoint.Entry{sick, template}, reason: "resume point sick does not fit: quarantined"},
		"the one before one that failed just now":   {candidates: []checkpoint.Entry{latest, old}, failed: map[string]string{latest.Digest: "torn"}, want: "old"},
		"none when all of them failed":              {candidates: []checkpoint.Entry{latest, old, template}, failed: map[string]string{latest.Digest: "torn", old.Digest: "torn"}, reason: "latest does not fit: torn"},
		"the one before one that lacks a file":      {candidates: []checkpoint.Entry{latest, old}, missing: map[string]string{latest.Digest: "no /data/x"}, want: "old"},
		"a template that lacks a file":              {candidates: []checkpoint.Entry{template}, missing: map[string]string{template.Digest: "no /data/x"}, reason: "template does not fit: no /data/x"},
		"not even one that was named":               {demanded: &template, missing: map[string]string{template.Digest: "no /data/x"}, reason: "no /data/x"},
		"an older one that was named":               {demanded: &old, written: true, want: "old", reason: "resume point old was asked for and fits"},
		"another's that was named":                  {demanded: &foreign, reason: "it is a resume point of ns/container/other"},
		"a template that was named":                 {demanded: &template, want: "template"},
		"a named template over what was written to": {demanded: &template, written: true, reason: "writable layer"},
	} {
		t.Run(name, func(t *testing.T) {
			req := Request{Fingerprint: wanted, FreshRootfs: !test.written, Owner: me, Failed: test.failed, Missing: test.missing, Demanded: test.demanded}
			d := Decide(req, test.candidates, here)
			if d.Name != test.want || (d.Action == checkpoint.Restore) != (test.want != "") || !strings.Contains(d.Reason, test.reason) {
				t.Errorf("%s of %q because %q, want %q because %q", d.Action, d.Name, d.Reason, test.want, test.reason)
			}
			for _, v := range d.Verdicts {
				if v.Fits != (v.Reason == "") {
					t.Errorf("verdict %+v", v)
				}
			}
		})
	}
}

func TestASupersededTemplateSaysSo(t *testing.T) {
	d := Decide(Request{Fingerprint: wanted, FreshRootfs: true, Owner: "me"}, []checkpoint.Entry{entry("template", 1), point("mine", "me", 2)}, here)
	if want := "the container has a newer resume point, mine,"; !strings.Contains(d.Verdicts[0].Reason, want) {
		t.Errorf("verdict %+v, want %q", d.Verdicts[0], want)
	}
}

func TestServed(t *testing.T) {
	fits, sick, changed := entry("fits", 1), entry("sick", 2), entry("changed", 3)
	sick.State.Failures = checkpoint.QuarantineAfter
	changed.Checkpoint.Host.Arch = "arm64"
	if Served(wanted, nil, here) || Served(wanted, []checkpoint.Entry{sick, changed}, here) || !Served(wanted, []checkpoint.Entry{sick, fits}, here) {
		t.Error("a template serves if, and only if, it would be restored")
	}
}

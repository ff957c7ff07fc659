package match

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/oci/spec"
)

// How many differences a reason names before it counts the rest.
const (
	maxFields   = 3
	maxFeatures = 5
)

// judge compares checkpoints with one container and host.
type judge struct {
	fingerprint checkpoint.Fingerprint
	host        checkpoint.HostFacts
	// features is the host's CPUFeatures, for look-up.
	features map[string]bool
	// lenient lets quarantined checkpoints pass, and templates beside a resume point.
	lenient bool
	// owner is the container's identity, latest its newest resume point; nil for none.
	owner  string
	latest *checkpoint.Entry
	// fresh says that the writable layer holds nothing yet.
	fresh bool
	// failed are the checkpoints that this start tried already.
	failed map[string]string
	// missing are those whose program would miss files of the container's volumes.
	missing map[string]string
}

func newJudge(req Request, candidates []checkpoint.Entry, host checkpoint.HostFacts) *judge {
	j := &judge{
		fingerprint: req.Fingerprint,
		host:        host,
		features:    make(map[string]bool, len(host.CPUFeatures)),
		lenient:     req.Demanded != nil,
		owner:       req.Owner,
		fresh:       req.FreshRootfs,
		failed:      req.Failed,
		missing:     req.Missing,
	}
	for _, f := range host.CPUFeatures {
		j.features[f] = true
	}
	for i, e := range candidates {
		if e.Checkpoint.Kind == checkpoint.ResumePoint && e.Checkpoint.Owner == req.Owner && (j.latest == nil || newer(e, *j.latest)) {
			j.latest = &candidates[i]
		}
	}
	return j
}

// judge returns why the entry does not fit, by the first check that says so, or
// "", and the number of checks that it passed.
func (j *judge) judge(e checkpoint.Entry) (passed int, why string) {
	// From what makes it another program to what may be temporary.
	checks := []func(checkpoint.Entry) string{
		j.identity, j.superseded, j.fields, j.arch, j.cpu, j.criu, j.kernel, j.cgroup, j.quarantine, j.tried, j.layer, j.volumes,
	}
	for i, check := range checks {
		if why := check(e); why != "" {
			return i, why
		}
	}
	return len(checks), ""
}

// identity keeps a resume point from everybody but its owner.
func (j *judge) identity(e checkpoint.Entry) string {
	if e.Checkpoint.Kind != checkpoint.ResumePoint || e.Checkpoint.Owner == j.owner {
		return ""
	}
	return fmt.Sprintf("it is a resume point of %s, and this container is %s", e.Checkpoint.Owner, j.owner)
}

// superseded keeps a container with a newer resume point from a template.
func (j *judge) superseded(e checkpoint.Entry) string {
	if j.lenient || e.Checkpoint.Kind == checkpoint.ResumePoint || j.latest == nil || !newer(*j.latest, e) {
		return ""
	}
	return fmt.Sprintf("the container has a newer resume point, %s, and a template would lose what was done until then", Ref(*j.latest))
}

// layer: a template's difference fits only upon a layer that has none.
func (j *judge) layer(e checkpoint.Entry) string {
	if j.fresh || e.Checkpoint.Kind == checkpoint.ResumePoint {
		return ""
	}
	return "the container's writable layer was written to, and a template needs a fresh one"
}

// tried passes over what this start could not be restored from.
func (j *judge) tried(e checkpoint.Entry) string { return j.failed[e.Digest] }

// volumes: what a program holds open of a volume or bind mount must be there again.
func (j *judge) volumes(e checkpoint.Entry) string { return j.missing[e.Digest] }

func (j *judge) fields(e checkpoint.Entry) string {
	names := j.fingerprint.Diff(e.Checkpoint.Fingerprint)
	for i, name := range names {
		names[i] = spec.Describe(name)
	}
	return enumerate(names, maxFields)
}

func (j *judge) arch(e checkpoint.Entry) string {
	if was := e.Checkpoint.Host.Arch; was != j.host.Arch {
		return fmt.Sprintf("the architecture is %s here, %s at capture", j.host.Arch, was)
	}
	return ""
}

// cpu looks for features that the node lacks: the program, or its libraries at
// load time, may have chosen code that uses them. More than at capture are fine.
func (j *judge) cpu(e checkpoint.Entry) string {
	var missing []string
	for _, f := range e.Checkpoint.Host.CPUFeatures {
		if !j.features[f] {
			missing = append(missing, f)
		}
	}
	if len(missing) == 0 {
		return ""
	}
	return "this CPU lacks " + enumerate(missing, maxFeatures)
}

// criu: images of a newer CRIU are not readable by an older one.
func (j *judge) criu(e checkpoint.Entry) string {
	switch was := e.Checkpoint.Host.CRIU; {
	case j.host.CRIU <= 0:
		return "there is no CRIU on this node"
	case j.host.CRIU < was:
		return fmt.Sprintf("CRIU %s is older than at capture (%s)", checkpoint.FormatCRIU(j.host.CRIU), checkpoint.FormatCRIU(was))
	}
	return ""
}

// kernel refuses one that is older than at capture. A program, and its libc and
// language runtime, probe at boot which system calls and flags the kernel has,
// and remember the answer; a restored process never asks again, and would use
// what an older kernel lacks. Stable updates add no interfaces, so that major
// and minor number decide.
func (j *judge) kernel(e checkpoint.Entry) string {
	was := e.Checkpoint.Host.Kernel
	if was == j.host.Kernel {
		return ""
	}
	hereMajor, hereMinor, okHere := kernelVersion(j.host.Kernel)
	wasMajor, wasMinor, okWas := kernelVersion(was)
	switch {
	case !okHere || !okWas:
		return fmt.Sprintf("kernel %q cannot be compared with %q at capture", j.host.Kernel, was)
	case hereMajor < wasMajor, hereMajor == wasMajor && hereMinor < wasMinor:
		return fmt.Sprintf("kernel %s is older than at capture (%s)", j.host.Kernel, was)
	}
	return ""
}

func (j *judge) cgroup(e checkpoint.Entry) string {
	if was := e.Checkpoint.Host.Cgroup; was != j.host.Cgroup {
		return fmt.Sprintf("cgroups are %s here, %s at capture", j.host.Cgroup, was)
	}
	return ""
}

func (j *judge) quarantine(e checkpoint.Entry) string {
	if j.lenient || !e.State.Quarantined() {
		return ""
	}
	why := fmt.Sprintf("quarantined after %d failed restores", e.State.Failures)
	if e.State.LastFailure != "" {
		why += ": " + e.State.LastFailure
	}
	return fmt.Sprintf("%s; clear it with 'snapctl clear %s'", why, Ref(e))
}

// kernelVersion reads the first two numbers of a release as uname prints it:
// "6.18.4-1-cloud" is 6 and 18, "6.6-rc1" is 6 and 6.
func kernelVersion(release string) (major, minor int, ok bool) {
	first, rest, _ := strings.Cut(release, ".")
	if i := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
		rest = rest[:i]
	}
	major, err := strconv.Atoi(first)
	if err != nil || major < 0 {
		return 0, 0, false
	}
	minor, err = strconv.Atoi(rest)
	return major, minor, err == nil
}

// enumerate writes the first of several things and counts the rest.
func enumerate(things []string, atMost int) string {
	if rest := len(things) - atMost; rest > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(things[:atMost], ", "), rest)
	}
	return strings.Join(things, ", ")
}

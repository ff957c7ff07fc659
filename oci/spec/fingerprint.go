package spec

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/containerd-snap/snap/checkpoint"
)

// FieldImage is the fingerprint's field for the identity of the image's file
// system. It is absent where that is unknown.
const FieldImage = "image"

// The fields of a fingerprint; those that end in a dot are followed by what of
// several they are of.
const (
	fieldArgs              = "args"
	fieldCwd               = "cwd"
	fieldEnv               = "env."
	fieldUser              = "user"
	fieldGroups            = "groups"
	fieldTerminal          = "terminal"
	fieldCapabilities      = "capabilities."
	fieldNoNewPrivileges   = "noNewPrivileges"
	fieldSeccomp           = "seccomp"
	fieldApparmor          = "apparmor"
	fieldSelinux           = "selinux"
	fieldMountLabel        = "mountLabel"
	fieldRlimit            = "rlimit."
	fieldNamespace         = "namespace."
	fieldTimeOffset        = "timeOffset."
	fieldMount             = "mount."
	fieldRootReadonly      = "root.readonly"
	fieldRootfsPropagation = "rootfsPropagation"
	fieldMaskedPaths       = "maskedPaths"
	fieldReadonlyPaths     = "readonlyPaths"
	fieldDevice            = "device."
	fieldHooks             = "hooks."
	fieldSysctl            = "sysctl."
	fieldPersonality       = "personality"
	fieldScheduler         = "scheduler"
	fieldIOPriority        = "ioPriority"
	fieldMemoryPolicy      = "memoryPolicy"
)

// defaultUmask is what libcontainer sets where the spec says nothing.
const defaultUmask = 0o022

// defaultDeviceMode is what libcontainer gives a device node where the spec says
// nothing.
const defaultDeviceMode = 0o666

// Fingerprint returns what of the container a checkpoint must have in common
// with it: everything that is baked into a restored process and that a restore
// does not apply anew. rootfs identifies the image's file system on the
// platform (the snapshot chain's ID) and is compared as it is; "" means
// unknown, and leaves FieldImage out.
//
// Not part of it is what is the new container's own and takes effect on a clone:
// host and domain name, cgroup path and resources, sources of bind mounts,
// oom_score_adj, annotations, the console's size, and the environment variables
// that describe the pod's surroundings (see environment). Settings that a
// restore would lose are obstacles instead, see Obstacles.
//
// Values of environment variables are digests, because they hold secrets. Two
// specs that libcontainer would treat alike may still differ in their
// fingerprints, in which case the container boots; the reverse must not happen.
func Fingerprint(s *specs.Spec, rootfs string) checkpoint.Fingerprint {
	f := checkpoint.Fingerprint{}
	if rootfs != "" {
		f[FieldImage] = rootfs
	}
	if s.Process != nil {
		addProcess(f, s.Process)
	}
	if s.Root != nil {
		f[fieldRootReadonly] = strconv.FormatBool(s.Root.Readonly)
	}
	addMounts(f, s.Mounts)
	if s.Hooks != nil {
		addHooks(f, s.Hooks)
	}
	if s.Linux != nil {
		addLinux(f, s.Linux)
	}
	return f
}

func addProcess(f checkpoint.Fingerprint, p *specs.Process) {
	f[fieldArgs] = list(p.Args)
	f[fieldCwd] = p.Cwd
	for name, v := range environment(p.Env) {
		f[fieldEnv+name] = "no value"
		if v.ok {
			f[fieldEnv+name] = digest([]byte(v.s))
		}
	}
	umask := uint32(defaultUmask)
	if p.User.Umask != nil {
		umask = *p.User.Umask
	}
	f[fieldUser] = fmt.Sprintf("%d:%d:%04o", p.User.UID, p.User.GID, umask)
	if gids := p.User.AdditionalGids; len(gids) > 0 {
		f[fieldGroups] = fmt.Sprint(set(gids))
	}
	f[fieldTerminal] = strconv.FormatBool(p.Terminal)
	if c := p.Capabilities; c != nil {
		// An empty set and a missing one grant the same: nothing.
		addSet(f, fieldCapabilities+"bounding", c.Bounding)
		addSet(f, fieldCapabilities+"effective", c.Effective)
		addSet(f, fieldCapabilities+"inheritable", c.Inheritable)
		addSet(f, fieldCapabilities+"permitted", c.Permitted)
		addSet(f, fieldCapabilities+"ambient", c.Ambient)
	}
	for _, r := range p.Rlimits {
		f[fieldRlimit+r.Type] = fmt.Sprintf("%d:%d", r.Soft, r.Hard)
	}
	f[fieldNoNewPrivileges] = strconv.FormatBool(p.NoNewPrivileges)
	addText(f, fieldApparmor, p.ApparmorProfile)
	addText(f, fieldSelinux, p.SelinuxLabel)
	if p.Scheduler != nil {
		f[fieldScheduler] = encode(p.Scheduler)
	}
	if p.IOPriority != nil {
		f[fieldIOPriority] = encode(p.IOPriority)
	}
}

func addLinux(f checkpoint.Fingerprint, l *specs.Linux) {
	for _, n := range l.Namespaces {
		// A namespace that is joined was outside of the checkpoint, a private
		// one is part of it: CRIU cannot turn one into the other.
		f[fieldNamespace+string(n.Type)] = "private"
		if n.Path != "" {
			f[fieldNamespace+string(n.Type)] = "path"
		}
	}
	for clock, o := range l.TimeOffsets {
		f[fieldTimeOffset+clock] = fmt.Sprintf("%d.%09d", o.Secs, o.Nanosecs)
	}
	for _, d := range l.Devices {
		addDevice(f, d)
	}
	for name, v := range l.Sysctl {
		f[fieldSysctl+name] = v
	}
	if l.Seccomp != nil {
		f[fieldSeccomp] = digest([]byte(encode(l.Seccomp)))
	}
	addText(f, fieldRootfsPropagation, l.RootfsPropagation)
	addText(f, fieldMountLabel, l.MountLabel)
	addSet(f, fieldMaskedPaths, l.MaskedPaths)
	addSet(f, fieldReadonlyPaths, l.ReadonlyPaths)
	if l.Personality != nil {
		f[fieldPersonality] = encode(l.Personality)
	}
	if l.MemoryPolicy != nil {
		f[fieldMemoryPolicy] = encode(l.MemoryPolicy)
	}
}

func addDevice(f checkpoint.Fingerprint, d specs.LinuxDevice) {
	mode, uid, gid := uint32(defaultDeviceMode), uint32(0), uint32(0)
	if d.FileMode != nil {
		mode = uint32(*d.FileMode)
	}
	if d.UID != nil {
		uid = *d.UID
	}
	if d.GID != nil {
		gid = *d.GID
	}
	f[fieldDevice+d.Path] = fmt.Sprintf("%s %d:%d %04o %d:%d", d.Type, d.Major, d.Minor, mode, uid, gid)
}

// addHooks counts the hooks of each kind. Their commands name the container, and
// change with it.
func addHooks(f checkpoint.Fingerprint, h *specs.Hooks) {
	for kind, hooks := range map[string][]specs.Hook{
		"prestart":        h.Prestart, //nolint:staticcheck // deprecated, still run
		"createRuntime":   h.CreateRuntime,
		"createContainer": h.CreateContainer,
		"startContainer":  h.StartContainer,
		"poststart":       h.Poststart,
		"poststop":        h.Poststop,
	} {
		if len(hooks) > 0 {
			f[fieldHooks+kind] = strconv.Itoa(len(hooks))
		}
	}
}

func addText(f checkpoint.Fingerprint, field, v string) {
	if v != "" {
		f[field] = v
	}
}

func addSet(f checkpoint.Fingerprint, field string, v []string) {
	if len(v) > 0 {
		f[field] = list(set(v))
	}
}

// set returns the values sorted and without repetitions; v stays as it is.
func set[T string | uint32](v []T) []T {
	return slices.Compact(slices.Sorted(slices.Values(v)))
}

// list writes strings so that no two lists read alike, whatever they hold.
func list(v []string) string { return fmt.Sprintf("%q", v) }

// encode writes a setting that has a structure. Those of a spec hold only what
// JSON can encode; were one ever not, its value would equal no other, and the
// container would boot.
func encode(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprintf("%p: %v", v, err)
	}
	return string(b)
}

// digest is long enough that no two values share it by chance.
func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

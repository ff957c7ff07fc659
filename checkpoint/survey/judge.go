package survey

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/containerd-snap/snap/checkpoint/criu"
	"github.com/containerd-snap/snap/oci/spec"
)

// remedyWithout is where nothing can be done but to do without.
const remedyWithout = "capture the program before it opens this, or without what uses it"

// Judge returns what stands in the way of a capture, and what is worth knowing of it.
func Judge(s Snapshot) []Finding {
	j := &judge{Snapshot: s, mounts: map[int]Mount{}, sockets: map[uint64]bool{}, masters: map[int]bool{}}
	for _, p := range s.Processes {
		for _, f := range p.Files {
			if f.Socket != nil {
				j.sockets[f.Socket.Inode] = true
			}
			if f.TTY >= 0 {
				j.masters[f.TTY] = true
			}
		}
	}
	for _, m := range s.Mounts {
		j.mounts[m.ID] = m
	}
	j.shape()
	j.mountTable()
	for i := range s.Processes {
		j.process(&s.Processes[i])
	}
	for i := range s.Strangers {
		p := &s.Strangers[i]
		j.add(Note, p, "", "it was started with exec: the checkpoint will not have it", "")
	}
	return j.findings
}

// judge collects findings.
type judge struct {
	Snapshot
	// mounts are the first process's, by id.
	mounts map[int]Mount
	// sockets are the inodes of those that the tree has open.
	sockets map[uint64]bool
	// masters are the terminals of which the tree has the master.
	masters  map[int]bool
	findings []Finding
}

func (j *judge) add(level Level, p *Process, resource, words, remedy string) {
	f := Finding{Level: level, Resource: resource, Words: words, Remedy: remedy}
	if p != nil {
		f.PID, f.Command = p.PID, p.Command
	}
	for i := range j.findings {
		if g := &j.findings[i]; resource != "" && g.PID == f.PID && g.Words == f.Words {
			g.More++
			return
		}
	}
	j.findings = append(j.findings, f)
}

// shape is about the container as a whole.
func (j *judge) shape() {
	if spec.IsSandbox(j.Spec) {
		j.add(Problem, nil, "", "it is a pod sandbox, which is never restored", "capture the pod's containers")
	}
	for _, o := range spec.Obstacles(j.Spec) {
		j.add(Problem, nil, "", o, "make the container without it")
	}
	var resident int64
	for _, p := range j.Processes {
		resident += p.Resident
	}
	if j.Free >= 0 && resident > j.Free {
		j.add(Warning, nil, "", fmt.Sprintf("its %d processes have %d MiB of memory, and %d MiB are free for checkpoints", len(j.Processes), resident>>20, j.Free>>20),
			"remove checkpoints with `snapctl rm` or `snapctl prune`, or give the store more space")
	}
}

// saved are the file systems that CRIU mounts anew; of others, and of fuse, it must be told
// by the spec.
var saved = map[string]bool{
	"overlay": true, "proc": true, "sysfs": true, "tmpfs": true, "devtmpfs": true, "devpts": true, "mqueue": true, "cgroup": true, "cgroup2": true,
	"securityfs": true, "configfs": true, "debugfs": true, "tracefs": true, "pstore": true, "fusectl": true, "hugetlbfs": true, "binfmt_misc": true,
	"efivarfs": true, "bpf": true,
}

// mountTable is about the mounts.
func (j *judge) mountTable() {
	// What the spec mounts somewhere, libcontainer declares to CRIU; with the
	// mounts that a recursive bind brought along.
	declared, recursive := map[string]bool{}, []string{"/dev", "/sys/fs/cgroup"}
	for _, m := range j.Spec.Mounts {
		declared[m.Destination] = true
		if slices.Contains(m.Options, "rbind") {
			recursive = append(recursive, m.Destination)
		}
	}
	if l := j.Spec.Linux; l != nil {
		for _, p := range slices.Concat(l.MaskedPaths, l.ReadonlyPaths) {
			declared[p] = true
		}
	}
	along := func(point string) bool {
		return slices.ContainsFunc(recursive, func(dir string) bool { return strings.HasPrefix(point, dir+"/") })
	}
	for _, m := range j.Mounts {
		switch {
		case m.Point == "/" && m.Type != "overlay":
			j.add(Problem, nil, "mount /", fmt.Sprintf("its root file system is of type %s, and only an overlay's writable layer can be captured", m.Type), "use the overlayfs snapshotter")
		case m.Point == "/", declared[m.Point], saved[m.Type], along(m.Point):
		default:
			j.add(Problem, nil, "mount "+m.Point, fmt.Sprintf("a file system of type %s was mounted there by the program, which CRIU cannot save", m.Type),
				"mount it through the container's spec, or unmount it before the capture")
		}
	}
}

// nested are the namespaces of which all processes of a checkpoint must have one.
var nested = []string{"pid", "user", "uts", "ipc", "time"}

// process is about one process.
func (j *judge) process(p *Process) {
	if p.Tracer != 0 {
		j.add(Problem, p, fmt.Sprintf("traced by process %d", p.Tracer), "a debugger, strace or a profiler is attached, and only one can be: CRIU is another", "detach it")
	}
	if p.ForeignSession {
		j.add(Problem, p, "session", "it came from outside, and its session leader is not in the container", "end what was started in the container by nsenter and the like")
	}
	if p.UID != 0 && !j.MayRaiseLimits {
		j.add(Problem, p, fmt.Sprintf("uid %d", p.UID), "this node's root may not read the limits of other users' processes (CAP_SYS_RESOURCE is missing)", "run containerd with all capabilities, or the program as root")
	}
	if p.State == 'D' {
		j.add(Warning, p, "state D", "it is in an uninterruptible sleep, and may not be stopped in time", "look at its disks and network file systems")
	}
	for _, ns := range nested {
		if first := j.Processes[0].Namespaces[ns]; p.Namespaces[ns] != "" && first != "" && p.Namespaces[ns] != first {
			j.add(Problem, p, ns+" namespace", "it made a namespace of its own within the container, which CRIU cannot save", remedyWithout)
		}
	}
	for i := range p.Files {
		j.file(p, &p.Files[i])
	}
	for _, m := range p.Mappings {
		j.mapping(p, m)
	}
}

func (j *judge) file(p *Process, f *File) {
	resource := fmt.Sprintf("fd %d (%s)", f.FD, f.Target)
	switch {
	case f.Socket != nil:
		j.socket(p, f.FD, f.Socket)
	case strings.HasPrefix(f.Target, "anon_inode:"):
		j.anonymous(p, f, resource)
	case f.Type&fs.ModeCharDevice != 0:
		j.characters(p, f, resource)
	case f.Type&fs.ModeDevice != 0:
		j.add(Problem, p, resource, "it has a block device open, which CRIU cannot save", "close it before the capture")
	case f.Type.IsRegular(), f.Type.IsDir():
		j.regular(p, f, resource)
	}
}

// anonymous is about what has no name in any file system.
func (j *judge) anonymous(p *Process, f *File, resource string) {
	switch name := strings.Trim(strings.TrimPrefix(f.Target, "anon_inode:"), "[]"); name {
	case "eventfd":
		if f.Counts {
			j.add(Problem, p, resource, "it uses an eventfd as a semaphore (EFD_SEMAPHORE), which CRIU would make a plain one in clones", remedyWithout)
		}
	case "eventpoll", "signalfd", "timerfd", "fanotify", "pidfd":
	case "inotify":
		for _, device := range f.Watches {
			for _, m := range j.Mounts {
				if m.Device == device && m.Type == "overlay" {
					j.add(Problem, p, resource, "it watches a file on the overlay "+m.Point+" (inotify), which CRIU cannot find again", "watch a directory of a volume, or turn file watching off")
					return
				}
			}
		}
	case "io_uring":
		j.add(Problem, p, resource, "it uses io_uring, which CRIU cannot save", "turn io_uring off in the program (Node.js: UV_USE_IO_URING=0), or forbid it by seccomp")
	case "userfaultfd":
		j.add(Problem, p, resource, "it uses userfaultfd, which CRIU cannot save", "capture when it is no longer in use")
	case "bpf-map":
		j.add(Warning, p, resource, "it has a BPF map open, of which CRIU saves some kinds", remedyWithout)
	default:
		j.add(Problem, p, resource, "it has a descriptor of a kind that CRIU cannot save", remedyWithout)
	}
}

// Device numbers, as the kernel's list has them.
const (
	majorMemory   = 1
	majorTTY      = 4
	majorTTYAux   = 5
	minorPtmx     = 2
	majorMisc     = 10
	minorTun      = 200
	majorPtsFirst = 136
	majorPtsLast  = 143
)

func (j *judge) characters(p *Process, f *File, resource string) {
	switch {
	case f.Major == majorMemory:
	case f.Major >= majorPtsFirst && f.Major <= majorPtsLast:
		terminal := j.Spec.Process != nil && j.Spec.Process.Terminal
		index := int(f.Major-majorPtsFirst)<<8 + int(f.Minor)
		if !terminal && !j.masters[index] {
			j.add(Problem, p, resource, "it uses a terminal whose master is outside of the container", "run the container with a terminal of its own, or without this one")
		}
	case f.Major == majorTTYAux, f.Major == majorTTY:
	case f.Major == majorMisc && f.Minor == minorTun:
		j.add(Problem, p, resource, "it has a network tunnel open, which CRIU cannot save here", "close it before the capture")
	default:
		j.add(Problem, p, resource, fmt.Sprintf("it has the character device %d:%d open, which CRIU cannot save", f.Major, f.Minor), "close it before the capture")
	}
}

func (j *judge) regular(p *Process, f *File, resource string) {
	deleted := strings.HasSuffix(f.Target, " (deleted)")
	switch {
	case strings.HasPrefix(f.Target, "/memfd:"):
	case deleted && f.Links > 0 && j.bound(f.MountID):
		j.add(Problem, p, resource, "the open file was deleted and has other names, on a mount that is no part of a checkpoint", "let the program close it, and capture then")
	case deleted && f.Links == 0 && f.Blocks > criu.DefaultGhostLimit:
		j.add(Problem, p, resource, fmt.Sprintf("the open file was deleted and has %d MiB, more than the %d MiB that a checkpoint carries of one", f.Blocks>>20, criu.DefaultGhostLimit>>20),
			"let the program close it, or capture earlier")
	case deleted, f.MountID == 0:
	default:
		if _, ok := j.mounts[f.MountID]; !ok && p.Namespaces["mnt"] == j.Processes[0].Namespaces["mnt"] {
			j.add(Problem, p, resource, "the open file lies outside of the container's mounts", "capture without it: it was passed in from outside, or its mount was removed")
		}
	}
}

// bound says that a mount was brought in by the spec, from outside.
func (j *judge) bound(mount int) bool {
	_, ok := spec.BindSource(j.Spec.Mounts, j.mounts[mount].Point)
	return ok
}

func (j *judge) mapping(p *Process, m Mapping) {
	private := false
	if j.Spec.Linux != nil {
		for _, n := range j.Spec.Linux.Namespaces {
			private = private || n.Type == "ipc" && n.Path == ""
		}
	}
	if strings.HasPrefix(m.Path, "/SYSV") && !private {
		j.add(Problem, p, "mapping "+m.Path, "it has System V shared memory, and the container has no IPC namespace of its own", "run the container with its own IPC namespace")
	}
}

// protocols are those of sockets that CRIU saves.
var protocols = map[string]bool{
	"TCP": true, "TCPv6": true, "UDP": true, "UDPv6": true, "UDP-Lite": true, "UDPLITEv6": true, "UNIX": true, "UNIX-STREAM": true,
	"NETLINK": true, "PACKET": true, "RAW": true, "RAWv6": true,
}

func (j *judge) socket(p *Process, fd int, s *Socket) {
	resource := fmt.Sprintf("fd %d (%s socket)", fd, s.Protocol)
	if s.Connected {
		resource = fmt.Sprintf("fd %d (%s socket, %s to %s)", fd, s.Protocol, s.Local, s.Remote)
	}
	switch {
	case strings.HasPrefix(s.Protocol, "MPTCP"):
		j.add(Problem, p, resource, "it has a multipath TCP socket, which Go's net.Listen makes by default and CRIU cannot save", "start the program with GODEBUG=multipathtcp=0, or turn net.mptcp.enabled off")
	case s.Protocol != "" && !protocols[s.Protocol]:
		j.add(Problem, p, resource, "it has a socket of a kind that CRIU cannot save", remedyWithout)
	case s.Connected:
		j.connection(p, resource)
	case s.Pending:
		j.add(Warning, p, resource, "its connection was not accepted yet, which CRIU can save if the listener is in the container", "capture again when it was accepted")
	case s.Peer != 0 && !j.sockets[s.Peer]:
		j.add(Problem, p, resource, "the other end of its Unix socket is outside of the container", "capture before the program connects to it, or let it connect anew afterwards")
	}
}

// connection is about one that is open, of which a setting decides.
func (j *judge) connection(p *Process, resource string) {
	switch j.TCP {
	case spec.TCPRefuse:
		j.add(Problem, p, resource, "it holds a TCP connection, and the setting tcp=refuse refuses to capture with one", "close it, or set tcp=close (it is left out) or tcp=established (it is saved)")
	case spec.TCPEstablished:
		j.add(Note, p, resource, "an open TCP connection is saved, and restored where the container has its address", "")
	default:
		j.add(Note, p, resource, "an open TCP connection is left out of the checkpoint: it goes on here, and is closed in clones", "")
	}
}

// Capturable says that no finding stands in the way.
func Capturable(findings []Finding) bool {
	return !slices.ContainsFunc(findings, func(f Finding) bool { return f.Level == Problem })
}

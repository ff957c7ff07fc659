// Package survey says whether a running container can be captured and, if not, which
// process and which resource stand in the way.
//
// Gather reads what is known of the container's processes from /proc, without touching
// them; Judge is pure and knows what CRIU can save. What it cannot see it does not speak
// of: that nothing was found is a forecast and no promise. The package has no state and
// no locks.
package survey

import (
	"io/fs"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/containerd-snap/snap/oci/spec"
)

// Snapshot is a container at one moment, as /proc and its spec tell.
type Snapshot struct {
	// Spec is the container's, TCP what is set to become of its connections.
	Spec *specs.Spec
	TCP  spec.TCP
	// Processes are the first one and its descendants: what a checkpoint holds.
	Processes []Process
	// Strangers are processes in its pid namespace that do not descend from the
	// first: those that were started with exec. A checkpoint leaves them out.
	Strangers []Process
	// Mounts are those of the first process.
	Mounts []Mount
	// MayRaiseLimits says that CRIU may read and set limits of processes of other
	// users (CAP_SYS_RESOURCE).
	MayRaiseLimits bool
	// Free is the space on the store's file system in bytes; negative if not known.
	Free int64
}

// Process is one process.
type Process struct {
	// PID is the one that the host sees.
	PID int
	// ForeignSession says that its session's leader is outside of its pid namespace.
	ForeignSession bool
	// Tracer is the process that traces it or one of its threads; 0 for none.
	Tracer  int
	UID     int
	Command string
	// State is the letter that ps shows.
	State byte
	// Resident is its memory in bytes.
	Resident int64
	// Namespaces has the identity of each namespace, by the name in /proc/PID/ns.
	Namespaces map[string]string
	Files      []File
	Mappings   []Mapping
}

// File is an open descriptor.
type File struct {
	FD int
	// Target is what the descriptor's link in /proc says.
	Target string
	Type   fs.FileMode
	// Major and Minor are of the device that it is, if it is one.
	Major, Minor uint32
	// Links is its number of names, Blocks its size on disk in bytes.
	Links  uint64
	Blocks int64
	// MountID is that of the mount through which it was opened.
	MountID int
	// Socket is set if it is one.
	Socket *Socket
	// TTY is the number of the terminal that it is the master of; -1 for none.
	TTY int
	// Watches are the devices ("major:minor") of the files that it watches by inotify.
	Watches []string
	// Counts says that it is an eventfd that counts down by one (EFD_SEMAPHORE).
	Counts bool
}

// Socket is an open socket.
type Socket struct {
	Inode uint64
	// Protocol is the kernel's name of it: TCP, MPTCPv6, UNIX-STREAM, PACKET …
	Protocol string
	// Connected says that a TCP socket is an end of a connection; Local and Remote are
	// its addresses.
	Connected     bool
	Local, Remote string
	// Peer is the inode of the socket that a Unix socket is connected to; 0 for none.
	Peer uint64
	// Pending says that it is connected to one that was not accepted yet.
	Pending bool
}

// Mapping is a mapped file of which something is to be said.
type Mapping struct {
	// Path is as in /proc/PID/maps.
	Path string
	// Bytes is the size of the mapping.
	Bytes int64
}

// Mount is a line of /proc/PID/mountinfo.
type Mount struct {
	ID int
	// Device is "major:minor" of the file system, Type its type.
	Device, Type string
	// Root is what of the file system is mounted, Point where.
	Root, Point string
}

// Level says how bad a finding is.
type Level string

// The levels of findings.
const (
	// Note is worth knowing.
	Note Level = "note"
	// Warning may stand in the way, or not.
	Warning Level = "warning"
	// Problem stands in the way of a capture.
	Problem Level = "problem"
)

// Finding is something that a capture would meet.
type Finding struct {
	Level Level `json:"level"`
	// PID is the process, as the host sees it; 0 for the container as a whole.
	PID int `json:"pid,omitempty"`
	// Command is the process's.
	Command string `json:"command,omitempty"`
	// Resource names what it is about: "fd 7 (anon_inode:[io_uring])".
	Resource string `json:"resource,omitempty"`
	// Words say what it is and why it matters.
	Words string `json:"words"`
	// More is the number of further resources of the process of which the same is said.
	More   int    `json:"more,omitempty"`
	Remedy string `json:"remedy,omitempty"`
}

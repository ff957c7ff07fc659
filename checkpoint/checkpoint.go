// Package checkpoint holds the words of the field as types: what a checkpoint
// is, what must be equal for it to fit a container (Fingerprint), what a node
// must offer for it to be restorable (HostFacts), and how a task starts
// (Decision).
//
// It is pure data: it reads no file and knows no clock, no containerd and no
// CRIU. The store, the matcher and the shim speak to each other in its types.
package checkpoint

import (
	"errors"
	"net/netip"
	"strconv"
	"time"
)

// Sentinel errors, compared with errors.Is.
var (
	// ErrNotFound is returned when a reference names no registered checkpoint.
	ErrNotFound = errors.New("checkpoint not found")
	// ErrExists is returned when a name is already taken.
	ErrExists = errors.New("checkpoint exists")
	// ErrAmbiguous is returned when a digest prefix names several checkpoints.
	ErrAmbiguous = errors.New("checkpoint reference is ambiguous")
	// ErrCorrupt is returned when a checkpoint's files differ from its manifest.
	ErrCorrupt = errors.New("checkpoint is damaged")
	// ErrInUse is returned when a checkpoint is being read by a restore.
	ErrInUse = errors.New("checkpoint is in use")
	// ErrInvalid is returned for a reference, name or manifest that cannot be valid.
	ErrInvalid = errors.New("invalid")
)

// Checkpoint describes the saved state of one task. It is written once, as the
// entry's manifest, and never changes; what changes lives in State.
type Checkpoint struct {
	// SchemaVersion is the layout of the entry; see SchemaVersion.
	SchemaVersion int `json:"schemaVersion"`
	// Kind says which containers it is for; empty counts as Template.
	Kind Kind `json:"kind,omitempty"`
	// Owner is the identity that a resume point belongs to (see spec.Owner); empty
	// for a template.
	Owner string `json:"owner,omitempty"`
	// CreatedAt is the moment at which the task was frozen.
	CreatedAt time.Time `json:"createdAt"`
	// Source says where it was captured.
	Source Source `json:"source"`
	// Fingerprint must equal the fingerprint of a container for the checkpoint to fit it.
	Fingerprint Fingerprint `json:"fingerprint"`
	// Host is what a node must offer for the checkpoint to be restorable.
	Host HostFacts `json:"host"`
	// Memory says in which form the images hold the memory.
	Memory Memory `json:"memory,omitzero"`
	// Files lists every regular file below images/, in lexical order of Path.
	Files []File `json:"files"`
	// Diff describes the writable layer's difference below diff/.
	Diff Diff `json:"diff"`
	// Timing is what the capture cost.
	Timing Timing `json:"timing"`
	// Connections are the TCP connections that are part of the checkpoint.
	Connections []Connection `json:"connections,omitempty"`
	// Addresses are those that the captured container's network had, loopback apart, if
	// a socket of the program is bound to one of them: a clone's own take their place.
	Addresses []Address `json:"addresses,omitempty"`
	// Held are the files of mounts from outside that the program had in use.
	Held []HeldFile `json:"held,omitempty"`
}

// HeldFile is a file or directory on a bind mount or volume that the captured program had
// open or mapped, or worked in. It is no part of the checkpoint: the container that is
// restored must have it.
type HeldFile struct {
	// Path is where the program had it, Mount the place of the mount that it is on.
	Path  string `json:"path"`
	Mount string `json:"mount"`
	// Size is the length in bytes that it must have; negative for any.
	Size int64 `json:"size"`
	// Mode is the kind and the permission bits that it must have, as in stat(2).
	Mode uint32 `json:"mode"`
}

// Shown is the path for people: a program may have called its file anything.
func (f HeldFile) Shown() string {
	quoted := strconv.Quote(f.Path)
	return quoted[1 : len(quoted)-1]
}

// Address is one that an interface of a network namespace has.
type Address struct {
	Interface string     `json:"interface"`
	Address   netip.Addr `json:"address"`
}

// String writes it as in "10.0.0.2 (eth0)".
func (a Address) String() string { return a.Address.String() + " (" + a.Interface + ")" }

// Connection is a TCP connection of a captured program. An address is written
// with its port, as in "10.0.0.2:80" or "[fd00::2]:80".
type Connection struct {
	Local  netip.AddrPort `json:"local"`
	Remote netip.AddrPort `json:"remote"`
}

// String writes both ends, the program's first.
func (c Connection) String() string { return c.Local.String() + " -> " + c.Remote.String() }

// SchemaVersion is the only layout of an entry that this version reads and writes.
const SchemaVersion = 1

// Kind says which containers a checkpoint is for.
type Kind string

// The two kinds, never confused: another container never starts from a resume
// point, and one that has a newer resume point never from a template.
const (
	// Template fits any container with its fingerprint: a booted program, ready to
	// serve. A manifest that names no kind is a template's.
	Template Kind = "template"
	// ResumePoint belongs to one identity, for going on after a crash.
	ResumePoint Kind = "resume-point"
)

// IndexKey is the key under which the store finds the checkpoint: a template by its
// fingerprint, a resume point by its owner alone, so that no other container ever
// comes upon it. Empty for one that is found by name and digest only.
func (c *Checkpoint) IndexKey() string {
	switch {
	case c.Kind == ResumePoint:
		return OwnerKey(c.Owner)
	case len(c.Fingerprint) > 0:
		return c.Fingerprint.Key()
	}
	return ""
}

// Source says where a checkpoint was captured. It is for people; nothing of it
// decides whether a checkpoint fits.
type Source struct {
	Namespace   string `json:"namespace"`
	Container   string `json:"container"`
	Image       string `json:"image,omitempty"`
	ImageDigest string `json:"imageDigest,omitempty"`
	// Command is the first words of the process's arguments, for tables.
	Command string `json:"command,omitempty"`
	// Processes is the number of processes captured.
	Processes int `json:"processes"`
}

// File is one file of CRIU's images.
type File struct {
	// Path is relative to images/, without "..".
	Path string `json:"path"`
	Size int64  `json:"size"`
	// SHA256 is the lower-case hexadecimal digest of the content; of a sparse
	// file, of its blocks that are not zero, each with its offset, and its size.
	SHA256 string `json:"sha256"`
	// Pages marks page data: too large to be read at every restore, it is
	// checked by size then, and by digest at registration and by doctor.
	Pages bool `json:"pages,omitempty"`
	// Sparse marks a file that is mostly a hole, and Stored is then how much of it is
	// not: Size says nothing of what it takes.
	Sparse bool  `json:"sparse,omitempty"`
	Stored int64 `json:"stored,omitempty"`
	// Shared marks a page file that came with the checkpoint Memory.Base, of which the captured task
	// was a restore: a link to the same file.
	Shared bool `json:"shared,omitempty"`
}

// Bytes is what the file takes.
func (f *File) Bytes() int64 {
	if f.Sparse {
		return f.Stored
	}
	return f.Size
}

// Diff describes the copy of the container's writable layer, taken while the
// task was frozen.
type Diff struct {
	// Format names the encoding of whiteouts; "overlay" is the kernel's own.
	Format string `json:"format"`
	Files  int    `json:"files"`
	// Bytes is the size of the contents, without the blocks of 4 KiB that are all zero.
	Bytes int64 `json:"bytes"`
	// SHA256 is a digest over the tree: names, modes, owners, contents, extended attributes.
	SHA256 string `json:"sha256"`
}

// Timing is what a capture cost, in milliseconds.
type Timing struct {
	// PauseMS is how long the program stood still.
	PauseMS float64 `json:"pauseMs"`
	// DumpMS is CRIU's part of the pause.
	DumpMS float64 `json:"dumpMs"`
	// DiffMS is the part of the pause in which the writable layer was copied.
	DiffMS float64 `json:"diffMs"`
}

// ImagesBytes is the size of CRIU's images.
func (c *Checkpoint) ImagesBytes() int64 {
	var n int64
	for _, f := range c.Files {
		n += f.Bytes()
	}
	return n
}

// Bytes is the size of the whole checkpoint.
func (c *Checkpoint) Bytes() int64 { return c.ImagesBytes() + c.Diff.Bytes }

// SharedBytes is the part of Bytes that came with the checkpoint's base.
func (c *Checkpoint) SharedBytes() int64 {
	var n int64
	for _, f := range c.Files {
		if f.Shared {
			n += f.Bytes()
		}
	}
	return n
}

// State is what changes about a registered checkpoint.
type State struct {
	// Failures counts failed restores in a row.
	Failures int `json:"failures"`
	// LastFailure is the reason of the last of them.
	LastFailure string `json:"lastFailure,omitempty"`
	// LastUsed is the time of the last successful restore; zero if never.
	LastUsed time.Time `json:"lastUsed,omitzero"`
	// Pinned keeps the checkpoint from being removed.
	Pinned bool `json:"pinned,omitempty"`
	// Restores counts successful restores.
	Restores int `json:"restores"`
}

// QuarantineAfter is the number of failed restores in a row after which a
// checkpoint is no longer chosen, until an operator clears it.
const QuarantineAfter = 3

// Quarantined says that the checkpoint failed too often to be chosen.
func (s State) Quarantined() bool { return s.Failures >= QuarantineAfter }

// Entry is a registered checkpoint.
type Entry struct {
	// Digest identifies the content: "sha256:" and the digest of the manifest.
	Digest string `json:"digest"`
	// Name is the operator's name for it; empty if it has none.
	Name string `json:"name,omitempty"`
	// Dir is the entry's directory; it holds images/ and diff/.
	Dir        string     `json:"-"`
	Checkpoint Checkpoint `json:"checkpoint"`
	State      State      `json:"state"`
}

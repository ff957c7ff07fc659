// Package archive carries a checkpoint from one store to another as one stream.
//
// # Format
//
// A POSIX (PAX) tar archive: manifest.json first, byte for byte as the store holds it, so
// that its SHA-256 is the checkpoint's digest; then images/ and diff/, a directory before
// what it holds. Owners, modes, times to the nanosecond, hard links and the extended
// attributes that the digest covers are kept (attributes as SCHILY.xattr records). A whiteout is
// the character device 0/0; other devices are refused.
//
// Two records are ours. SNAP.size, of a file with holes: its size in bytes; the entry's content
// is then a sequence of extents in ascending order, each an offset and a length as 64-bit
// little-endian numbers, followed by as many bytes. SNAP.socket marks the name of a
// socket, which tar does not know, on an empty file.
//
// # Trust
//
// Read takes nothing on trust that it can check: what leads out of the checkpoint, comes
// twice, is not listed in the manifest or larger than it says, is refused before it is
// written, and the whole is registered only if its digest is that of the manifest. It cannot
// check who made it: see docs/operations.md.
package archive

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/containerd-snap/snap/checkpoint"
)

// The names of a stream's parts.
const (
	manifestName = "manifest.json"
	imagesName   = "images"
	diffName     = "diff"
)

// The PAX records that the format uses.
const (
	recordXattr  = "SCHILY.xattr."
	recordSize   = "SNAP.size"
	recordSocket = "SNAP.socket"
)

// block is the unit in which holes are kept, and what offsets of extents are multiples of.
const block = 4096

// extentHead is the length in bytes of what precedes an extent.
const extentHead = 16

// errStream is the class of what is wrong with a stream.
func errStream(format string, args ...any) error {
	return fmt.Errorf("%w checkpoint stream: %w", checkpoint.ErrInvalid, fmt.Errorf(format, args...))
}

// split returns the part of the checkpoint that an entry belongs to, and its path in
// there: "." for the part itself.
func split(name string) (part, rel string, err error) {
	part, rel, nested := strings.Cut(strings.TrimSuffix(name, "/"), "/")
	if part != imagesName && part != diffName {
		return "", "", errors.New("it is in neither " + imagesName + " nor " + diffName)
	}
	if !nested {
		return part, ".", nil
	}
	// Names of files need not be UTF-8, so that fs.ValidPath does not do.
	for element := range strings.SplitSeq(rel, "/") {
		if element == "" || element == "." || element == ".." || strings.ContainsRune(element, 0) {
			return "", "", errors.New("its path is not plain")
		}
	}
	return part, path.Clean(rel), nil
}

// covered says whether an extended attribute is part of a checkpoint's digest.
func covered(name string) bool {
	return name == "security.capability" || strings.HasPrefix(name, "trusted.") ||
		strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "system.posix_acl_")
}

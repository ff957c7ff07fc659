package criu

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/containerd-snap/snap/checkpoint/criu/image"
)

// ErrNewer is returned for images of a format that only a newer CRIU reads.
var ErrNewer = errors.New("the images are of a newer CRIU: update criu on this node")

// checkInventory checks the first file that CRIU reads, and the version of the images' format
// that it names: 2 up to CRIU 4.2, 3 in newer ones for compressed pages.
//
// It does not say which version of CRIU wrote them, and formats of most images only grow: an
// older CRIU ignores what it does not know, and fails late or restores too little. So the
// version belongs into a checkpoint's own manifest; this catches the formats that no longer
// fit at all.
func checkInventory(dir string) error {
	const name = "inventory.img"
	data, err := image.ReadFile(filepath.Join(dir, name))
	if err == nil {
		_, err = parseInventory(data)
	}
	if err != nil {
		return image.Unusable(name, err)
	}
	return nil
}

// networkLocks counts CRIU's methods (criu/include/cr_options.h): iptables, nftables and skip.
const networkLocks = 3

// parseInventory returns the version in an inventory_entry (images/inventory.proto) behind its
// magic number. It has one only, because CRIU learns from it how to read the others.
func parseInventory(data []byte) (version uint64, err error) {
	const invVersion, invNetworkLock = 1, 11
	if len(data) < image.Header || binary.LittleEndian.Uint32(data) != magicInventory {
		return 0, errMagic
	}
	recs, err := image.Records(data[4:])
	if err != nil {
		return 0, err
	}
	fields, err := image.Parse(recs[0])
	if err != nil {
		return 0, err
	}
	version = fields.Number(invVersion)
	switch lock := fields.Number(invNetworkLock); {
	case version == 0:
		return 0, errors.New("no version")
	case version > maxVersion:
		return 0, fmt.Errorf("format %d: %w", version, ErrNewer)
	case lock >= networkLocks:
		return 0, fmt.Errorf("network lock %d: %w", lock, ErrNewer)
	}
	return version, nil
}

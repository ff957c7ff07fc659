package criu

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
)

// ErrNewer is returned for images of a format that only a newer CRIU reads.
var ErrNewer = errors.New("the images are of a newer CRIU: update criu on this node")

// Inventory is what the images say about the dump as a whole.
//
// They do not say which version of CRIU wrote them, and formats of
// most images only grow: an older CRIU ignores what it does not know, and fails late or
// restores too little. So the version belongs into a checkpoint's own manifest; Version
// catches the formats that no longer fit at all.
type Inventory struct {
	// Version is the images' format: 2 up to CRIU 4.2. Newer ones use 3 for
	// compressed pages.
	Version int
	// RootPID is the process id of the tree's root, in its own pid namespace.
	RootPID int
	// TCPClose says that connections were left out: a restore must then use TCPClose.
	TCPClose bool
	// NetworkLock is the method of the dump, which the restore will use too.
	NetworkLock NetworkLock
	// RunID is the id of the dump, a UUID; empty if an older CRIU made it.
	RunID string
}

// ReadInventory reads inventory.img and the root of pstree.img. Errors wrap
// ErrImages, and ErrNewer for a format that is too new.
func ReadInventory(dir string) (Inventory, error) {
	inv, err := readInventory(dir)
	if err != nil {
		return Inventory{}, err
	}
	tasks, err := tree(dir)
	if err != nil {
		return Inventory{}, err
	}
	inv.RootPID = tasks[0].pid
	return inv, nil
}

// checkInventory checks the first file that CRIU reads, and its version.
func checkInventory(dir string) error {
	_, err := readInventory(dir)
	return err
}

func readInventory(dir string) (Inventory, error) {
	const name = "inventory.img"
	data, err := readRegular(filepath.Join(dir, name), maxImage)
	if err != nil {
		return Inventory{}, unusable(name, err)
	}
	inv, err := parseInventory(data)
	if err != nil {
		return Inventory{}, unusable(name, err)
	}
	return inv, nil
}

// networkLocks are CRIU's numbers (criu/include/cr_options.h).
var networkLocks = [...]NetworkLock{LockIPTables, LockNFTables, LockSkip}

// parseInventory reads an inventory_entry (images/inventory.proto) behind its
// magic number. It has one only, because CRIU learns from it how to read the others.
func parseInventory(data []byte) (Inventory, error) {
	if len(data) < header || binary.LittleEndian.Uint32(data) != magicInventory {
		return Inventory{}, errMagic
	}
	recs, err := splitRecords(data[4:])
	if err != nil {
		return Inventory{}, err
	}
	fs, err := fields(recs[0])
	if err != nil {
		return Inventory{}, err
	}
	var inv Inventory
	for _, f := range fs {
		switch f.num {
		case 1:
			if f.value > maxVersion {
				return Inventory{}, fmt.Errorf("format %d: %w", f.value, ErrNewer)
			}
			inv.Version = int(f.value)
		case 10:
			inv.TCPClose = f.value != 0
		case 11:
			if f.value >= uint64(len(networkLocks)) {
				return Inventory{}, fmt.Errorf("network lock %d: %w", f.value, ErrNewer)
			}
			inv.NetworkLock = networkLocks[f.value]
		case 13:
			inv.RunID = clean(string(f.bytes))
		}
	}
	if inv.Version == 0 {
		return Inventory{}, errors.New("no version")
	}
	return inv, nil
}

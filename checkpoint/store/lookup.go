package store

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/containerd-snap/snap/checkpoint"
)

// Lookup returns the registered templates whose fingerprint has the given key, or the
// resume points whose owner has it (checkpoint.OwnerKey), newest first. It reads those
// entries and no others, and passes over what it cannot read.
func (s *Store) Lookup(key string) ([]checkpoint.Entry, error) {
	if !isHash(key) {
		return nil, fmt.Errorf("look up checkpoints: %w key %.80q: it is %d hexadecimal digits", checkpoint.ErrInvalid, key, hexLen)
	}
	names, err := listDir(s.path(indexDir, key))
	if err != nil {
		return nil, fmt.Errorf("look up checkpoints: %w", err)
	}
	return s.loadAll(names, func(e checkpoint.Entry) bool { return e.Checkpoint.IndexKey() == key }), nil
}

// List returns all registered checkpoints, newest first. Damaged ones are left out;
// see Damaged.
func (s *Store) List() ([]checkpoint.Entry, error) {
	hexes, err := s.hexes()
	if err != nil {
		return nil, fmt.Errorf("list checkpoints: %w", err)
	}
	return s.loadAll(hexes, func(checkpoint.Entry) bool { return true }), nil
}

// Damage says of a registered checkpoint what is wrong with it.
type Damage struct {
	Digest string
	// Err wraps checkpoint.ErrCorrupt, checkpoint.ErrInvalid or what the file system said.
	Err error
}

// Damaged returns the registered checkpoints that List leaves out because their
// manifest cannot be read, for an operator to Remove.
func (s *Store) Damaged() ([]Damage, error) {
	hexes, err := s.hexes()
	if err != nil {
		return nil, fmt.Errorf("list damaged checkpoints: %w", err)
	}
	slices.Sort(hexes)
	var damaged []Damage
	for _, hex := range hexes {
		if _, err := s.load(hex); err != nil && !errors.Is(err, checkpoint.ErrNotFound) {
			damaged = append(damaged, Damage{Digest: digestPrefix + hex, Err: err})
		}
	}
	return damaged, nil
}

// Resolve finds a registered checkpoint by its name, its digest, or a prefix of at
// least 7 digits of its digest that no other has; "sha256:" may precede digits. Errors wrap
// checkpoint.ErrNotFound, checkpoint.ErrAmbiguous, checkpoint.ErrInvalid for what cannot be a
// reference, or checkpoint.ErrCorrupt. Of a damaged checkpoint the Digest is returned
// beside the error, so that it can be removed.
func (s *Store) Resolve(ref string) (checkpoint.Entry, error) {
	hex, err := s.find(ref)
	if err != nil {
		return checkpoint.Entry{}, err
	}
	e, err := s.load(hex)
	if errors.Is(err, checkpoint.ErrNotFound) {
		return checkpoint.Entry{}, refNotFound(ref)
	}
	if err != nil {
		return checkpoint.Entry{Digest: digestPrefix + hex}, fmt.Errorf("resolve %q: %w", ref, err)
	}
	return e, nil
}

func refNotFound(ref string) error {
	return fmt.Errorf("resolve %q: %w; \"snapctl ls\" lists those that are registered", ref, checkpoint.ErrNotFound)
}

// find returns the digest, in hexadecimal, that ref stands for.
func (s *Store) find(ref string) (string, error) {
	digits, isDigest := strings.CutPrefix(ref, digestPrefix)
	switch {
	case isHash(digits):
		return digits, nil
	case isHexPrefix(digits) && len(digits) < hexLen:
		return s.findPrefix(ref, digits)
	case isDigest || isHexPrefix(digits):
		return "", fmt.Errorf("resolve %.80q: %w digest: it is %d hexadecimal digits, or at least the first %d of them",
			ref, checkpoint.ErrInvalid, hexLen, minPrefix)
	}
	if err := CheckName(ref); err != nil {
		return "", fmt.Errorf("resolve: %w", err)
	}
	hex, err := s.holder(ref)
	if err != nil {
		return "", fmt.Errorf("resolve %q: %w", ref, err)
	}
	if hex == "" {
		return "", refNotFound(ref)
	}
	return hex, nil
}

func (s *Store) findPrefix(ref, digits string) (string, error) {
	hexes, err := s.hexes()
	if err != nil {
		return "", fmt.Errorf("resolve %q: %w", ref, err)
	}
	hexes = slices.DeleteFunc(hexes, func(hex string) bool { return !strings.HasPrefix(hex, digits) })
	switch len(hexes) {
	case 0:
		return "", refNotFound(ref)
	case 1:
		return hexes[0], nil
	default:
		slices.Sort(hexes)
		return "", fmt.Errorf("resolve %q: %w: %d checkpoints begin so, among them %.16s and %.16s; give more digits",
			ref, checkpoint.ErrAmbiguous, len(hexes), hexes[0], hexes[1])
	}
}

// hexes returns the digests of all entries, readable or not, in no order.
func (s *Store) hexes() ([]string, error) {
	names, err := listDir(s.path(entriesDir))
	if err != nil {
		return nil, err
	}
	hexes := names[:0]
	for _, name := range names {
		if hex, ok := strings.CutPrefix(name, entryPrefix); ok && isHash(hex) {
			hexes = append(hexes, hex)
		}
	}
	return hexes, nil
}

func (s *Store) loadAll(hexes []string, keep func(checkpoint.Entry) bool) []checkpoint.Entry {
	var entries []checkpoint.Entry
	for _, hex := range hexes {
		if !isHash(hex) {
			continue
		}
		if e, err := s.load(hex); err == nil && keep(e) {
			entries = append(entries, e)
		}
	}
	slices.SortFunc(entries, func(a, b checkpoint.Entry) int {
		return cmp.Or(b.Checkpoint.CreatedAt.Compare(a.Checkpoint.CreatedAt), cmp.Compare(a.Digest, b.Digest))
	})
	return entries
}

// load reads one entry and what lies beside it.
func (s *Store) load(hex string) (checkpoint.Entry, error) {
	dir, c, err := s.openEntry(hex)
	if err != nil {
		return checkpoint.Entry{}, err
	}
	dir.Close()
	return checkpoint.Entry{
		Digest:     digestPrefix + hex,
		Name:       s.nameOf(hex),
		Dir:        s.entryDir(hex),
		Checkpoint: c,
		State:      s.readState(hex),
	}, nil
}

// openEntry opens an entry's directory and reads its manifest.
func (s *Store) openEntry(hex string) (*os.File, checkpoint.Checkpoint, error) {
	dir, err := s.openEntryDir(hex)
	if err != nil {
		return nil, checkpoint.Checkpoint{}, err
	}
	c, err := readManifest(dir, hex)
	if err == nil {
		return dir, c, nil
	}
	if !isAt(dir, s.entryDir(hex)) {
		err = notRegistered(hex) // removed while it was read
	}
	dir.Close()
	return nil, checkpoint.Checkpoint{}, err
}

func (s *Store) openEntryDir(hex string) (*os.File, error) {
	dir, err := openDir(s.entryDir(hex))
	if errors.Is(err, os.ErrNotExist) {
		return nil, notRegistered(hex)
	}
	return dir, err
}

func notRegistered(hex string) error {
	return fmt.Errorf("%w: %s%s", checkpoint.ErrNotFound, digestPrefix, hex)
}

func readManifest(dir *os.File, hex string) (checkpoint.Checkpoint, error) {
	raw, err := readBounded(dir, manifestName, maxManifest)
	if err != nil {
		return checkpoint.Checkpoint{}, damage(manifestName, err)
	}
	if digestOf(raw) != hex {
		return checkpoint.Checkpoint{}, corrupt(manifestName, "its digest differs")
	}
	return decodeManifest(raw)
}

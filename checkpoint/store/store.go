// Package store is the node's registry of checkpoints on disk. It writes
// checkpoints so that none is ever visible in part, finds them by fingerprint,
// name or digest, checks their files, and keeps beside them what changes: names,
// failures, last use, and the record of each container's last start.
//
// It decides nothing: which checkpoint fits is the matcher's business, and what
// CRIU's images say is not looked at.
//
// # Layout
//
//	entries/sha256-HEX/   manifest.json, images/, diff/; never changes
//	index/KEY/HEX         empty; finds entries by the key of fingerprint or owner
//	names/NAME            the digest that the name stands for
//	state/HEX.json        failures and last use
//	state/HEX.pin         empty; there while the entry is pinned
//	state/HEX.name        the name last given to the entry; true only if names/ agrees
//	starts/NS/ID.json     the last start of a container
//	tally/tally.json      what is counted on the node
//	captures/KEY/         whose turn it is to capture a fingerprint by itself, and failures to do so
//	drafts/  trash/  tmp/ being written, being deleted, about to be renamed
//
// # Crashes
//
// Any user of the store may be killed at any moment. The one step that registers
// a checkpoint is the rename of its complete and synced directory into entries/;
// the one that removes it is the rename out of it. Index, names and state that
// point to no entry mean nothing; readers pass over them and Sweep deletes them.
//
// # Locks
//
// All locks are flocks on things that exist anyway, so that the kernel frees them
// with their owner and no lock file is left behind. In the order in which they are
// taken:
//
//   - entries/, exclusive: the registry lock, held for the few renames that
//     publish or remove an entry, and while Sweep collects what points to nothing;
//   - an entry's directory, shared by Hold, exclusive for Remove;
//   - an entry's manifest.json, exclusive while its state is rewritten or it is pinned;
//   - a directory in drafts/ or trash/ and a file in tmp/, exclusive by its owner:
//     what can be locked there is abandoned;
//   - tally/, exclusive while the tally is changed;
//   - a directory in captures/, exclusive as long as a capture takes, and before all others;
//   - starts/, shared by writers, exclusive while old records are dropped.
//
// Readers (Lookup, Resolve, List) take none and never wait.
package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// The directories below the root.
const (
	entriesDir = "entries"
	indexDir   = "index"
	namesDir   = "names"
	stateDir   = "state"
	startsDir  = "starts"
	tallyDir   = "tally"
	draftsDir  = "drafts"
	trashDir   = "trash"
	tmpDir     = "tmp"
	// capturesDir has a directory for each fingerprint that is being captured by
	// itself, or could not be.
	capturesDir = "captures"
)

// The parts of an entry.
const (
	manifestName = "manifest.json"
	imagesName   = "images"
	diffName     = "diff"
)

// lockWait is the longest time to wait for a lock that others hold for milliseconds.
const lockWait = 30 * time.Second

// Store is a registry of checkpoints. It holds no descriptor and no state of its
// own, and may be used by many goroutines and processes at once.
type Store struct {
	root string
}

// Open opens the store at root and creates what is missing of it. A root that
// others than root own or may read is refused: page files hold the secrets of
// the programs.
func Open(root string) (*Store, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	s := &Store{root: root}
	if err := s.createLayout(); err != nil {
		if errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 {
			return nil, fmt.Errorf("open store %s: %w; the store belongs to root, run this as root", root, err)
		}
		return nil, fmt.Errorf("open store %s: %w", root, err)
	}
	return s, nil
}

// Root returns the absolute path of the store's directory.
func (s *Store) Root() string { return s.root }

// Empty says whether no checkpoint is registered. It costs one read of a directory.
func (s *Store) Empty() (bool, error) {
	dir, err := openDir(s.path(entriesDir))
	if err != nil {
		return false, fmt.Errorf("look into store %s: %w", s.root, err)
	}
	defer dir.Close()
	_, err = dir.Readdirnames(1)
	if errors.Is(err, io.EOF) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("look into store %s: %w", s.root, err)
	}
	return false, nil
}

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.root}, elem...)...)
}

func (s *Store) entryDir(hex string) string { return s.path(entriesDir, entryPrefix+hex) }

func (s *Store) createLayout() error {
	if err := os.MkdirAll(filepath.Dir(s.root), 0o755); err != nil {
		return err
	}
	created, err := makeDir(s.root)
	if err != nil {
		return err
	}
	if err := checkPrivate(s.root); err != nil {
		return err
	}
	for _, name := range []string{entriesDir, indexDir, namesDir, stateDir, startsDir, tallyDir, draftsDir, trashDir, tmpDir, capturesDir} {
		made, err := makeDir(s.path(name))
		if err != nil {
			return err
		}
		created = created || made
		if info, err := os.Lstat(s.path(name)); err != nil {
			return err
		} else if !info.IsDir() {
			// A link could lead to another file system, across which nothing can be renamed.
			return fmt.Errorf("%s is not a directory; move the whole store instead of its parts", name)
		}
	}
	if created {
		return syncDir(s.root)
	}
	return nil
}

func makeDir(path string) (created bool, err error) {
	err = os.Mkdir(path, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	return err == nil, err
}

// checkPrivate refuses a directory that others than root own or may enter.
func checkPrivate(path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return errors.New("not a directory")
	}
	if st.Uid != 0 {
		return fmt.Errorf("owned by uid %d, not by root; checkpoints hold secrets: look at what is in it, then chown 0:0 %s", st.Uid, path)
	}
	if perm := st.Mode & 0o7777; perm&0o077 != 0 {
		return fmt.Errorf("mode %04o lets others than root in; checkpoints hold secrets: chmod 0700 %s", perm, path)
	}
	return nil
}

// lockRegistry takes the lock under which entries, index and names change.
func (s *Store) lockRegistry(ctx context.Context) (release func(), err error) {
	dir, err := openDir(s.path(entriesDir))
	if err != nil {
		return nil, err
	}
	if err := lock(ctx, dir, unix.LOCK_EX); err != nil {
		dir.Close()
		return nil, err
	}
	return func() { unlock(dir) }, nil
}

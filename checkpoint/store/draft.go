package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
)

// Draft is a checkpoint that is being written. It lives as long as its owner: if
// that dies, Sweep finds the draft's lock free and deletes it. A Draft may be used by
// one goroutine at a time.
type Draft struct {
	store *Store
	dir   string
	// lock holds the flock on dir; nil once the draft is committed or discarded.
	lock *os.File
}

// NewDraft begins a checkpoint. The caller must Discard it; after a successful
// Commit that does nothing.
func (s *Store) NewDraft() (*Draft, error) {
	d, err := s.newDraft()
	if err != nil {
		return nil, fmt.Errorf("begin checkpoint: %w", s.adviseSpace(err))
	}
	for _, dir := range []string{d.ImagesDir(), d.DiffDir()} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return nil, errors.Join(fmt.Errorf("begin checkpoint: %w", s.adviseSpace(err)), d.Discard())
		}
	}
	return d, nil
}

// newDraft makes and locks a directory in drafts/. Between the two, Sweep may take it
// for abandoned and delete it: then it is made anew.
func (s *Store) newDraft() (*Draft, error) {
	for {
		path := s.path(draftsDir, rand.Text())
		if err := os.Mkdir(path, 0o700); err != nil {
			return nil, err
		}
		dir, err := openDir(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		ok, err := tryLock(dir, unix.LOCK_EX)
		if err != nil {
			dir.Close()
			return nil, err
		}
		if ok && isAt(dir, path) {
			return &Draft{store: s, dir: path, lock: dir}, nil
		}
		dir.Close()
	}
}

// ImagesDir is where CRIU's images go: mode 0700, empty at first.
func (d *Draft) ImagesDir() string { return filepath.Join(d.dir, imagesName) }

// DiffDir is where the copy of the writable layer goes: mode 0700, empty at first.
// Its own mode, owner and attributes are part of the copy.
func (d *Draft) DiffDir() string { return filepath.Join(d.dir, diffName) }

// Discard deletes the draft. It does nothing for one that is committed or discarded.
func (d *Draft) Discard() error {
	if d.lock == nil {
		return nil
	}
	if err := os.RemoveAll(d.dir); err != nil {
		return fmt.Errorf("discard checkpoint: %w", err)
	}
	d.done()
	return nil
}

// done ends the draft and frees its lock.
func (d *Draft) done() {
	unlock(d.lock)
	d.lock = nil
}

// CommitOptions say how a checkpoint is registered.
type CommitOptions struct {
	// Name is the operator's name for it; empty for none. See CheckName.
	Name string
	// Replace takes the name away from the checkpoint that has it. That one
	// stays registered, without a name.
	Replace bool
	// Digest is what the checkpoint must turn out to be; empty for whatever it is.
	Digest string
}

// Commit registers the draft. Of meta, SchemaVersion, Files and Diff are filled in from
// what lies in the draft, but a file that meta.Files marks as Pages is marked so, too,
// as are all pages-*.img; and one that it marks as Shared has the digest that it says there,
// and is not read again. A checkpoint of no kind is a template. One without a fingerprint is found by name and digest
// only. If the same checkpoint is registered already, it is given the name, and repaired
// if it is damaged. A checkpoint has one name; a second one takes the place of the first.
//
// Errors wrap checkpoint.ErrExists if the name is taken and Replace is not set,
// checkpoint.ErrCorrupt if the digest is not the one that it must be, and
// checkpoint.ErrInvalid for what can never be registered. After an error the store is as
// it was before, and the draft as well: it can be committed again, or discarded.
func (d *Draft) Commit(ctx context.Context, meta checkpoint.Checkpoint, opts CommitOptions) (checkpoint.Entry, error) {
	e, err := d.commit(ctx, meta, opts)
	if err != nil {
		return checkpoint.Entry{}, fmt.Errorf("register checkpoint of %q: %w", meta.Source.Container, d.store.adviseSpace(err))
	}
	return e, nil
}

func (d *Draft) commit(ctx context.Context, meta checkpoint.Checkpoint, opts CommitOptions) (checkpoint.Entry, error) {
	if d.lock == nil {
		return checkpoint.Entry{}, fmt.Errorf("%w draft: it was committed or discarded before", checkpoint.ErrInvalid)
	}
	if opts.Name != "" {
		if err := CheckName(opts.Name); err != nil {
			return checkpoint.Entry{}, err
		}
	}
	hex, err := d.seal(ctx, &meta)
	if err != nil {
		return checkpoint.Entry{}, err
	}
	if digest := digestPrefix + hex; opts.Digest != "" && opts.Digest != digest {
		return checkpoint.Entry{}, fmt.Errorf("%w: what is there is %s and not %s", checkpoint.ErrCorrupt, digest, opts.Digest)
	}
	p := publication{store: d.store, draft: d, hex: hex, key: meta.IndexKey(), opts: opts}
	if err := p.publish(ctx); err != nil {
		return checkpoint.Entry{}, err
	}
	if err := d.Discard(); err != nil { // there is something left only if the checkpoint was registered before
		return checkpoint.Entry{}, err
	}
	return d.store.load(hex)
}

// adviseSpace adds the remedy to the errors of a full disk.
func (s *Store) adviseSpace(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w; make room on the file system of %s, for example with \"snapctl rm\"", err, s.root)
	}
	return err
}

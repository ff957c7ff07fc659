package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
)

// publication is the registration of one sealed draft.
type publication struct {
	store *Store
	draft *Draft
	hex   string
	// key is the one to be found by; empty for a checkpoint that is not indexed.
	key  string
	opts CommitOptions
	// holder is the entry that has the name so far; empty if it is free.
	holder string
	// undo takes back what was done, last first, if a later step fails.
	undo []func()
}

// publish registers the draft under the registry lock: whole or, after an error, not
// at all. Index and a new name come first, because they mean nothing until the
// entry is there; then the rename makes all true at once. Only a name that
// another entry loses changes afterwards.
func (p *publication) publish(ctx context.Context) (err error) {
	s := p.store
	release, err := s.lockRegistry(ctx)
	if err != nil {
		return err
	}
	defer release()
	defer func() {
		if err != nil {
			for _, undo := range slices.Backward(p.undo) {
				undo()
			}
		}
	}()

	if p.opts.Name != "" {
		if p.holder, err = s.holder(p.opts.Name); err != nil {
			return err
		}
		if p.holder != "" && p.holder != p.hex && !p.opts.Replace {
			return nameTaken(p.opts.Name, p.holder)
		}
	}
	intact, err := p.clearWay()
	if err != nil {
		return err
	}
	if err := p.index(); err != nil {
		return fmt.Errorf("index the checkpoint: %w", err)
	}
	former := s.nameOf(p.hex) // of a checkpoint that was registered before
	name, err := p.stageName()
	if err != nil {
		return fmt.Errorf("write name %q: %w", p.opts.Name, err)
	}
	if name != nil && p.holder == "" {
		if err := p.placeName(name); err != nil {
			return fmt.Errorf("write name %q: %w", p.opts.Name, err)
		}
		name = nil
	}
	if !intact {
		if err := p.rename(); err != nil {
			return err
		}
	}
	if name != nil {
		if err := p.placeName(name); err != nil {
			return fmt.Errorf("write name %q: %w", p.opts.Name, err)
		}
	}
	if former != "" && p.opts.Name != "" && former != p.opts.Name {
		if err := remove(s.path(namesDir, former)); err != nil {
			return fmt.Errorf("remove former name %q: %w", former, err)
		}
	}
	if !intact {
		p.draft.done() // it is the entry now, and free for Hold and Remove
	}
	return nil
}

// clearWay says whether the same checkpoint is registered and intact; a damaged one
// it moves to the trash, for the draft to take its place.
func (p *publication) clearWay() (intact bool, err error) {
	s := p.store
	if !s.registered(p.hex) {
		return false, p.forgetState()
	}
	err = s.verifyMetadata(p.hex)
	if err == nil {
		return true, nil
	}
	if !errors.Is(err, checkpoint.ErrCorrupt) && !errors.Is(err, checkpoint.ErrInvalid) {
		return false, err // not known to be damaged
	}
	trash, err := s.moveToTrash(p.hex, false)
	if err != nil {
		return false, fmt.Errorf("replace the damaged checkpoint %s%s: %w", digestPrefix, p.hex, err)
	}
	unlock(trash.dir) // Sweep deletes it
	return false, p.forgetState()
}

// forgetState drops what an earlier entry with the same content left: its failures
// may have come from its damage.
func (p *publication) forgetState() error {
	return remove(p.store.statePath(p.hex))
}

// index makes the entry findable by its fingerprint, or by its owner.
func (p *publication) index() error {
	if p.key == "" {
		return nil
	}
	dir := p.store.path(indexDir, p.key)
	path := p.store.path(indexDir, p.key, p.hex)
	created, err := makeDir(dir)
	if err != nil {
		return err
	}
	if created {
		p.undo = append(p.undo, func() { os.Remove(dir) })
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	p.undo = append(p.undo, func() { os.Remove(path) })
	f.Close()
	if err := syncDir(dir); err != nil {
		return err
	}
	return syncDir(p.store.path(indexDir))
}

// stageName writes all that is needed to give the entry its name, so that the last
// step is a rename, which a full disk does not hinder.
func (p *publication) stageName() (*staged, error) {
	if p.opts.Name == "" {
		return nil, nil
	}
	s := p.store
	hint := s.path(stateDir, p.hex+".name")
	before, readErr := readFile(s.path(stateDir), p.hex+".name", maxPointer)
	if err := s.replaceFile(hint, []byte(p.opts.Name), true); err != nil {
		return nil, err
	}
	p.undo = append(p.undo, func() {
		if readErr != nil || s.replaceFile(hint, before, true) != nil {
			os.Remove(hint)
		}
	})
	name, err := s.stage([]byte(digestPrefix+p.hex+"\n"), true)
	if err != nil {
		return nil, err
	}
	p.undo = append(p.undo, name.drop)
	return name, nil
}

// placeName makes the name stand for the entry.
func (p *publication) placeName(name *staged) error {
	path := p.store.path(namesDir, p.opts.Name)
	if err := name.place(path); err != nil {
		return err
	}
	p.undo = append(p.undo, func() {
		if p.holder == "" || p.store.replaceFile(path, []byte(digestPrefix+p.holder+"\n"), true) != nil {
			os.Remove(path)
		}
	})
	return syncDir(p.store.path(namesDir))
}

// rename is the step that registers the checkpoint.
func (p *publication) rename() error {
	s, d := p.store, p.draft
	if err := os.Rename(d.dir, s.entryDir(p.hex)); err != nil {
		return err
	}
	p.undo = append(p.undo, func() { _ = os.Rename(s.entryDir(p.hex), d.dir) })
	return syncDir(s.path(entriesDir))
}

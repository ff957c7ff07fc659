package store

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
)

const (
	maxStart = 1 << 20
	maxID    = 128
	startExt = ".json"
	// keepStarts is the number of start records that are kept; slackStarts more may
	// lie on disk, so that not every start pays for dropping one.
	keepStarts  = 1000
	slackStarts = 100
)

// errNoStart is what Start returns for a container of which no start is recorded. It
// is a checkpoint.ErrNotFound with other words: there may be no checkpoint at all.
type errNoStart struct{}

func (errNoStart) Error() string        { return "no start is recorded" }
func (errNoStart) Is(target error) bool { return target == checkpoint.ErrNotFound }

// PutStart records the last start of a container, in place of an earlier one. The record
// outlives the container; the newest 1000 are kept. It does not wait for the disk:
// a power cut may lose it.
func (s *Store) PutStart(r checkpoint.Start) error {
	if err := s.putStart(r); err != nil {
		return fmt.Errorf("record start of %.80q: %w", r.Container, s.adviseSpace(err))
	}
	return nil
}

func (s *Store) putStart(r checkpoint.Start) error {
	if err := checkStart(&r); err != nil {
		return err
	}
	raw, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if len(raw) > maxStart {
		return fmt.Errorf("%w record: %d bytes, the limit is %d", checkpoint.ErrInvalid, len(raw), maxStart)
	}
	starts, err := openDir(s.path(startsDir))
	if err != nil {
		return err
	}
	defer unlock(starts)
	if err := lock(context.Background(), starts, unix.LOCK_SH); err != nil {
		return err
	}
	if _, err := makeDir(s.path(startsDir, r.Namespace)); err != nil {
		return err
	}
	if err := s.replaceFile(s.path(startsDir, r.Namespace, r.Container+startExt), raw, false); err != nil {
		return err
	}
	return s.trimStarts(starts)
}

// Start returns the record of a container's last start. The error wraps
// checkpoint.ErrNotFound if there is none, and checkpoint.ErrInvalid if it is unreadable.
func (s *Store) Start(namespace, container string) (checkpoint.Start, error) {
	err := checkStartNames(namespace, container)
	var r checkpoint.Start
	if err == nil {
		r, err = s.readStart(namespace, container)
	}
	if err != nil {
		return checkpoint.Start{}, fmt.Errorf("read start of %.80q in namespace %.80q: %w", container, namespace, err)
	}
	return r, nil
}

func (s *Store) readStart(namespace, container string) (checkpoint.Start, error) {
	raw, err := readFile(s.path(startsDir, namespace), container+startExt, maxStart)
	if errors.Is(err, os.ErrNotExist) {
		return checkpoint.Start{}, errNoStart{}
	}
	if err != nil {
		return checkpoint.Start{}, err
	}
	r, err := decodeStart(raw)
	if err != nil {
		return checkpoint.Start{}, err
	}
	if r.Namespace != namespace || r.Container != container {
		return checkpoint.Start{}, fmt.Errorf("%w start record: it is of %s in namespace %s", checkpoint.ErrInvalid, r.Container, r.Namespace)
	}
	return r, nil
}

// Starts returns the newest 1000 start records, newest first, without unreadable ones.
func (s *Store) Starts() ([]checkpoint.Start, error) {
	files, err := s.startFiles()
	if err != nil {
		return nil, fmt.Errorf("list starts: %w", err)
	}
	var starts []checkpoint.Start
	for _, f := range files {
		if r, err := s.readStart(f.namespace, f.container); err == nil {
			starts = append(starts, r)
		}
	}
	slices.SortFunc(starts, func(a, b checkpoint.Start) int {
		return cmp.Or(b.At.Compare(a.At), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Container, b.Container))
	})
	return starts[:min(len(starts), keepStarts)], nil
}

// startFile is a start record on disk.
type startFile struct {
	namespace, container string
	written              time.Time
}

func (s *Store) startFiles() ([]startFile, error) {
	namespaces, err := listDir(s.path(startsDir))
	if err != nil {
		return nil, err
	}
	var files []startFile
	for _, ns := range namespaces {
		names, err := listDir(s.path(startsDir, ns))
		if err != nil {
			continue // not ours
		}
		for _, name := range names {
			id, ok := strings.CutSuffix(name, startExt)
			if ok && checkStartNames(ns, id) == nil {
				files = append(files, startFile{namespace: ns, container: id})
			}
		}
	}
	return files, nil
}

// countStarts returns at least the number of records; it is on the way of every start.
func (s *Store) countStarts() (int, error) {
	namespaces, err := listDir(s.path(startsDir))
	if err != nil {
		return 0, err
	}
	count := 0
	for _, ns := range namespaces {
		if names, err := listDir(s.path(startsDir, ns)); err == nil {
			count += len(names)
		}
	}
	return count, nil
}

// trimStarts drops the oldest records if there are too many. It takes the lock on
// starts/ alone, or a record that is just being renewed could be dropped for its age.
// If others are writing, one of the next starts will do it.
func (s *Store) trimStarts(starts *os.File) error {
	count, err := s.countStarts()
	if err != nil || count <= keepStarts+slackStarts {
		return err
	}
	files, err := s.startFiles()
	if err != nil || len(files) <= keepStarts {
		return err
	}
	if ok, err := tryLock(starts, unix.LOCK_EX); !ok || err != nil {
		return err
	}
	for i := range files {
		if info, err := os.Lstat(s.path(startsDir, files[i].namespace, files[i].container+startExt)); err == nil {
			files[i].written = info.ModTime()
		}
	}
	slices.SortFunc(files, func(a, b startFile) int { return b.written.Compare(a.written) })
	for _, f := range files[keepStarts:] {
		if err := remove(s.path(startsDir, f.namespace, f.container+startExt)); err != nil {
			return err
		}
	}
	return nil
}

func decodeStart(raw []byte) (checkpoint.Start, error) {
	var r checkpoint.Start
	if err := decodeJSON(raw, &r); err != nil {
		return checkpoint.Start{}, fmt.Errorf("%w start record: %w", checkpoint.ErrInvalid, err)
	}
	if err := checkStart(&r); err != nil {
		return checkpoint.Start{}, err
	}
	return r, nil
}

func checkStart(r *checkpoint.Start) error {
	if err := checkStartNames(r.Namespace, r.Container); err != nil {
		return err
	}
	for _, a := range []checkpoint.Action{r.Decision.Action, r.Outcome} {
		if a != "" && a != checkpoint.Boot && a != checkpoint.Restore {
			return fmt.Errorf("%w start record: action %.20q is neither %q nor %q", checkpoint.ErrInvalid, a, checkpoint.Boot, checkpoint.Restore)
		}
	}
	if y := r.At.Year(); y < 0 || y > 9999 {
		return fmt.Errorf("%w start record: the time is out of range", checkpoint.ErrInvalid)
	}
	return nil
}

// checkStartNames keeps to what containerd takes as identifiers, more or less: it is what
// makes them safe as file names that matters here.
func checkStartNames(names ...string) error {
	for _, name := range names {
		ok := name != "" && len(name) <= maxID && !strings.ContainsRune("._-", rune(name[0]))
		for _, r := range name {
			ok = ok && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r))
		}
		if !ok {
			return fmt.Errorf("%w container or namespace %.80q: 1 to %d letters, digits, '.', '_' and '-', beginning with a letter or digit",
				checkpoint.ErrInvalid, name, maxID)
		}
	}
	return nil
}

package store

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/containerd-snap/snap/checkpoint"
)

const (
	digestPrefix = "sha256:"
	entryPrefix  = "sha256-"
	hexLen       = 64
	// minPrefix is the shortest prefix of a digest that is taken as a reference.
	minPrefix  = 7
	maxName    = 128
	maxPointer = 256
)

// CheckName says whether name can be a checkpoint's name: 1 to 128 characters of
// a-z, 0-9, '.', '_' and '-', beginning with a letter or digit, and nothing that
// could be read as a digest. Its errors wrap checkpoint.ErrInvalid.
func CheckName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w name: it is empty", checkpoint.ErrInvalid)
	case len(name) > maxName:
		return fmt.Errorf("%w name %.20q...: %d characters, at most %d are allowed", checkpoint.ErrInvalid, name, len(name), maxName)
	case strings.IndexByte("._-", name[0]) >= 0:
		return fmt.Errorf("%w name %q: begin it with a letter or a digit", checkpoint.ErrInvalid, name)
	case isHexPrefix(name), strings.HasPrefix(name, entryPrefix):
		return fmt.Errorf("%w name %q: it reads like a digest; choose one with another letter in it", checkpoint.ErrInvalid, name)
	}
	for _, r := range name {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && !strings.ContainsRune("._-", r) {
			return fmt.Errorf("%w name %q: %q is not allowed, only a-z, 0-9, '.', '_' and '-'", checkpoint.ErrInvalid, name, r)
		}
	}
	return nil
}

// CheckName says, before a capture is paid for, whether a checkpoint can be
// registered under name: its errors wrap checkpoint.ErrInvalid, or
// checkpoint.ErrExists if the name is taken. Commit checks again.
func (s *Store) CheckName(name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	holder, err := s.holder(name)
	if err != nil {
		return fmt.Errorf("check name %q: %w", name, err)
	}
	if holder != "" {
		return nameTaken(name, holder)
	}
	return nil
}

func nameTaken(name, holder string) error {
	return fmt.Errorf("name %q: %w: it stands for %s%.12s; choose another name, replace it, or remove that checkpoint first",
		name, checkpoint.ErrExists, digestPrefix, holder)
}

// holder returns the entry that a valid name stands for; empty if there is none.
func (s *Store) holder(name string) (hex string, err error) {
	raw, err := readFile(s.path(namesDir), name, maxPointer)
	switch {
	case err == nil:
	case errors.Is(err, os.ErrNotExist), errors.Is(err, checkpoint.ErrInvalid), errors.Is(err, errNotRegular):
		return "", nil
	default:
		return "", err
	}
	if hex, err := parseDigest(strings.TrimSuffix(string(raw), "\n")); err == nil && s.registered(hex) {
		return hex, nil
	}
	return "", nil // a name without an entry is the trace of a crash, and free
}

// nameOf returns the name of an entry. It is read from the entry's side, which is
// only a hint, and believed if the name points back: no scan of all names is needed.
func (s *Store) nameOf(hex string) string {
	raw, err := readFile(s.path(stateDir), hex+".name", maxPointer)
	if err != nil {
		return ""
	}
	name := string(raw)
	if CheckName(name) != nil {
		return ""
	}
	if holder, err := s.holder(name); err != nil || holder != hex {
		return ""
	}
	return name
}

func (s *Store) registered(hex string) bool {
	info, err := os.Lstat(s.entryDir(hex))
	return err == nil && info.IsDir()
}

// parseDigest returns the hexadecimal part of a "sha256:" digest.
func parseDigest(digest string) (hex string, err error) {
	hex, ok := strings.CutPrefix(digest, digestPrefix)
	if !ok || !isHash(hex) {
		return "", fmt.Errorf("%w digest %.80q: it is sha256: and %d hexadecimal digits", checkpoint.ErrInvalid, digest, hexLen)
	}
	return hex, nil
}

// CheckDigest says whether digest can be a checkpoint's: "sha256:" and 64 hexadecimal
// digits in lower case. Its errors wrap checkpoint.ErrInvalid.
func CheckDigest(digest string) error {
	_, err := parseDigest(digest)
	return err
}

func isHash(s string) bool { return len(s) == hexLen && isHex(s) }

// isHexPrefix says whether s is read as a digest or the beginning of one. No name
// may look so, or a name could hide a digest.
func isHexPrefix(s string) bool { return len(s) >= minPrefix && isHex(s) }

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

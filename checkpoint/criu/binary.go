package criu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd-snap/snap/checkpoint"
)

// ErrNotInstalled is returned by Find when PATH holds no criu.
var ErrNotInstalled = errors.New("criu is not installed")

// MinVersion is the oldest version that this project is tried with. On Linux 6.16
// and newer it takes 4.2 (40200) to dump a program that has an internet socket.
const MinVersion = 40000

const (
	program = "criu"
	// versionTimeout bounds one run of `criu --version`, which takes milliseconds.
	versionTimeout = 10 * time.Second
	cacheName      = "criu-version"
)

// Binary is an installed CRIU.
type Binary struct {
	// Path is the absolute path of the program.
	Path string
	// CacheDir is the directory in which Version remembers what it learned, for
	// example the root of the store; empty for no cache. It must be writable by root
	// only. A directory that cannot be written costs time, not correctness.
	CacheDir string
}

// Find looks criu up in PATH, and nowhere else, because libcontainer does so too.
// The error wraps ErrNotInstalled and names the PATH.
func Find() (Binary, error) {
	p, err := exec.LookPath(program)
	if err == nil {
		p, err = filepath.Abs(p)
	}
	if err != nil {
		return Binary{}, fmt.Errorf("find criu in PATH %q: %w (%w): install criu >= %s and put it into the PATH of containerd, which its shims inherit; `snapctl doctor` checks it",
			os.Getenv("PATH"), ErrNotInstalled, err, checkpoint.FormatCRIU(MinVersion))
	}
	return Binary{Path: p}, nil
}

// Version returns the version as major*10000 + minor*100 + patch. A build from
// a git tree counts as the next minor version, as it does for libcontainer.
//
// The answer is kept in CacheDir under the program's path, device, inode, size
// and modification time, because `criu --version` costs milliseconds on the start
// path. A wrapper script is known by the script, not by what it runs: touch
// it after replacing that.
func (b Binary) Version(ctx context.Context) (int, error) {
	key, err := b.identity()
	if err != nil {
		return 0, fmt.Errorf("read the version of criu: %w", err)
	}
	if v, ok := b.cached(key); ok {
		return v, nil
	}
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, b.Path, "--version")
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return 0, fmt.Errorf("run %s --version: %w%s", b.Path, err, stderrOf(err))
	}
	v, err := parseVersion(out)
	if err != nil {
		return 0, fmt.Errorf("read the output of %s --version: %w", b.Path, err)
	}
	b.remember(key, v)
	return v, nil
}

// stderrOf returns what a failed program said, for an error message.
func stderrOf(err error) string {
	var exit *exec.ExitError
	if !errors.As(err, &exit) || len(bytes.TrimSpace(exit.Stderr)) == 0 {
		return ""
	}
	return ": " + clean(string(bytes.TrimSpace(exit.Stderr)))
}

// parseVersion reads the output of `criu --version`: a line "Version: 4.1.1",
// and for a build from a git tree a line "GitID: v4.1-57-gabcdef".
func parseVersion(out []byte) (int, error) {
	v, found, git := 0, false, false
	for line := range strings.Lines(string(out)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch name {
		case "Version":
			if found {
				continue
			}
			n, err := parseNumber(strings.TrimSpace(value))
			if err != nil {
				return 0, err
			}
			v, found = n, true
		case "GitID":
			git = strings.TrimSpace(value) != "" && strings.TrimSpace(value) != "0"
		}
	}
	if !found {
		return 0, fmt.Errorf("no line \"Version: X.Y.Z\" in %q", clip(string(out), 200))
	}
	if git {
		v = min(v+100-v%100, 999_999)
	}
	return v, nil
}

// parseNumber reads "4.1.1", "4.2" or "4.2-rc1". A minor version or patch above
// 99 has no place in the encoding and is refused.
func parseNumber(s string) (int, error) {
	bare, _, _ := strings.Cut(s, "-")
	parts := strings.Split(bare, ".")
	if len(parts) < 2 || len(parts) > 3 {
		return 0, fmt.Errorf("version %q is not X.Y or X.Y.Z", clip(s, 60))
	}
	v := 0
	for i := range 3 {
		n := uint64(0)
		if i < len(parts) {
			var err error
			if n, err = strconv.ParseUint(parts[i], 10, 8); err != nil || n > 99 {
				return 0, fmt.Errorf("version %q: %q is not a number from 0 to 99", clip(s, 60), clip(parts[i], 20))
			}
		}
		v = v*100 + int(n)
	}
	if v == 0 {
		return 0, fmt.Errorf("version %q is no release of CRIU's", clip(s, 60))
	}
	return v, nil
}

// identity names the file behind Path so that any replacement changes the name.
func (b Binary) identity() (string, error) {
	fi, err := os.Stat(b.Path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("%w: %w", ErrNotInstalled, err)
		}
		return "", err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return "", fmt.Errorf("%s: no inode", b.Path)
	}
	return fmt.Sprintf("%q %d %d %d %d", b.Path, st.Dev, st.Ino, fi.Size(), fi.ModTime().UnixNano()), nil
}

// cached returns the remembered version. Whatever is wrong with the file, the
// answer is "not known".
func (b Binary) cached(key string) (int, bool) {
	if b.CacheDir == "" {
		return 0, false
	}
	data, err := os.ReadFile(filepath.Join(b.CacheDir, cacheName))
	if err != nil {
		return 0, false
	}
	return parseCache(string(data), key)
}

func parseCache(data, key string) (int, bool) {
	rest, ok := strings.CutPrefix(data, key+" ")
	if !ok {
		return 0, false
	}
	v, err := parseNumber(strings.TrimSuffix(rest, "\n"))
	return v, err == nil && strings.HasSuffix(rest, "\n")
}

// remember writes the cache. Failing to is harmless: the next start asks criu again.
func (b Binary) remember(key string, v int) {
	if b.CacheDir == "" {
		return
	}
	_ = writeFile(filepath.Join(b.CacheDir, cacheName), []byte(key+" "+checkpoint.FormatCRIU(v)+"\n"))
}

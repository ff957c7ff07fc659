package host

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// maxBlock bounds what is read of /proc/cpuinfo, in bytes. One processor takes
// about 2 KiB on x86.
const maxBlock = 64 << 10

// errNoFeatures is returned where /proc/cpuinfo names no features.
var errNoFeatures = errors.New("the first processor has no line of flags or features")

// features returns the first processor's features as the file at path names
// them. Architectures whose kernel does not list any have none.
func features(path, arch string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read CPU features: %w", err)
	}
	defer f.Close()
	found, err := parseFeatures(f)
	if errors.Is(err, errNoFeatures) && !listsFeatures(arch) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read CPU features of %s: %w", path, err)
	}
	return found, nil
}

// listsFeatures says that the kernel lists the features on this architecture.
func listsFeatures(arch string) bool {
	switch arch {
	case "amd64", "386", "arm64", "arm", "s390x":
		return true
	}
	return false
}

// parseFeatures reads the first block of /proc/cpuinfo, up to the line it needs
// or the first empty one: the file has a block per processor, which the kernel
// writes as it is read, and on a large machine all of them take milliseconds.
// The features of the others are the same: the kernel hides what not all have.
//
// They are in the line "flags" on x86, "Features" on arm and "features" on
// s390x. The result is sorted, without repetitions.
func parseFeatures(r io.Reader) ([]string, error) {
	lines := bufio.NewScanner(io.LimitReader(r, maxBlock))
	// One buffer for the longest line; it is also the size of a read.
	lines.Buffer(make([]byte, 0, 8<<10), maxBlock)
	for lines.Scan() {
		line := lines.Bytes()
		if len(bytes.TrimSpace(line)) == 0 {
			break
		}
		key, value, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			continue
		}
		switch string(bytes.TrimSpace(key)) {
		case "flags", "Features", "features":
			found := strings.Fields(string(value))
			slices.Sort(found)
			return slices.Compact(found), nil
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	return nil, errNoFeatures
}

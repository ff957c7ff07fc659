package doctor

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/criu"
	"github.com/containerd-snap/snap/checkpoint/host"
)

const (
	shimProgram = "containerd-shim-snap-v2"
	// checkTimeout bounds `criu check`, which takes less than a second.
	checkTimeout = time.Minute
	// maxOutput is the number of last lines kept of what it writes.
	maxOutput = 3
)

// Node is what this node is like, apart from its store.
type Node struct {
	// UID is the effective user id.
	UID int
	// Path is the PATH in which programs were looked for.
	Path string
	// Facts are those that decide about a restore; FactsErr says why they are unknown.
	Facts    checkpoint.HostFacts
	FactsErr error
	// CRIU is the path of the program; CRIUErr says why it cannot be used.
	CRIU    string
	CRIUErr error
	// Check is the end of what `criu check` wrote, CheckErr why it failed.
	Check    string
	CheckErr error
	// RunTmpfs says that /run is a tmpfs.
	RunTmpfs bool
	// Shim is the path of the runtime's program; empty if PATH does not hold it.
	Shim string
	// Version is that of this program.
	Version string
	// ConfigFile is the configuration that was read, empty if --root took its place;
	// ConfigErr says what is wrong with it.
	ConfigFile string
	ConfigErr  error
	Host       Host
	Containerd Containerd
}

// Probe looks at this node, and at the containerd at address.
func Probe(ctx context.Context, address string) Node {
	n := Node{UID: os.Geteuid(), Path: os.Getenv("PATH")}
	if n.UID == 0 {
		n.Containerd = probeContainerd(ctx, address)
	}
	version := 0
	bin, err := criu.Find()
	if err == nil {
		n.CRIU = bin.Path
		// Without a cache: a version that was remembered may be that of a
		// program behind a wrapper that was replaced since.
		version, err = bin.Version(ctx)
	}
	n.CRIUErr = err
	n.Facts, n.FactsErr = host.Facts(version)
	if n.CRIUErr == nil && n.UID == 0 {
		n.Check, n.CheckErr = check(ctx, bin.Path)
	}
	if n.UID == 0 {
		usable := ""
		if n.CRIUErr == nil {
			usable = bin.Path
		}
		n.Host = probeHost(ctx, usable)
	}
	var st unix.Statfs_t
	n.RunTmpfs = unix.Statfs("/run", &st) == nil && st.Type == unix.TMPFS_MAGIC
	if p, err := exec.LookPath(shimProgram); err == nil {
		n.Shim = p
	}
	return n
}

// check runs `criu check`, with which CRIU tries what it needs of the kernel.
func check(ctx context.Context, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "check")
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return lastLines(out, maxOutput), err
}

// lastLines joins the last n lines that are not empty.
func lastLines(out []byte, n int) string {
	var lines []string
	for line := range bytes.Lines(out) {
		if line = bytes.TrimSpace(line); len(line) > 0 {
			lines = append(lines, string(line))
		}
	}
	return strings.Join(lines[max(0, len(lines)-n):], "; ")
}

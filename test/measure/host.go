package measure

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/criu"
	"github.com/containerd-snap/snap/test/harness"
)

// Host says on what it was measured.
type Host struct {
	At     time.Time `json:"at"`
	Kernel string    `json:"kernel"`
	Arch   string    `json:"arch"`
	// CPU is the processor's model, CPUs their number.
	CPU         string `json:"cpu"`
	CPUs        int    `json:"cpus"`
	MemoryBytes uint64 `json:"memory_bytes"`
	Containerd  string `json:"containerd"`
	CRIU        string `json:"criu"`
	Snap        string `json:"snap"`
}

// HostOf asks the machine and the node's programs.
func HostOf(ctx context.Context, n *harness.Node) (Host, error) {
	h := Host{At: time.Now().UTC().Truncate(time.Second), Arch: runtime.GOARCH, CPU: cpuModel(), CPUs: runtime.NumCPU()}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return h, fmt.Errorf("ask for the kernel's release: %w", err)
	}
	h.Kernel = unix.ByteSliceToString(u.Release[:])
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return h, fmt.Errorf("ask for the size of the memory: %w", err)
	}
	h.MemoryBytes = info.Totalram * uint64(info.Unit)
	v, err := n.Client().Version(ctx)
	if err != nil {
		return h, fmt.Errorf("ask containerd for its version: %w", err)
	}
	h.Containerd = v.Version
	out, err := n.Snapctl(ctx, "version")
	if err != nil {
		return h, err
	}
	h.Snap = strings.TrimPrefix(strings.TrimSpace(out.Stdout), "snapctl ")
	bin, err := criu.Find()
	if err != nil {
		return h, err
	}
	version, err := bin.Version(ctx)
	h.CRIU = checkpoint.FormatCRIU(version)
	return h, err
}

// cpuModel is empty where the kernel does not tell it, as on arm64.
func cpuModel() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if key, value, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// WriteJSON puts figures into a file.
func WriteJSON(name string, figures any) error {
	data, err := json.MarshalIndent(figures, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the figures: %w", err)
	}
	return WriteFile(name, append(data, '\n'))
}

// WriteFile writes a file and makes its directory.
func WriteFile(name string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return os.WriteFile(name, data, 0o644)
}

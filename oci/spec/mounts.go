package spec

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/containerd-snap/snap/checkpoint"
)

// addMounts adds a field for each destination. CRIU recreates the mounts of the
// checkpoint and takes only the sources of bind mounts from the new container,
// so these alone may differ.
func addMounts(f checkpoint.Fingerprint, mounts []specs.Mount) {
	for i, m := range mounts {
		destination := mountPoint(m)
		v := m.Type
		if isBind(m) {
			v = "bind"
		} else if m.Source != "" {
			v += " from " + strconv.Quote(m.Source)
		}
		v += " " + list(set(m.Options))
		// A mount that another one covers later is not what the program sees.
		for _, later := range mounts[i+1:] {
			if p := mountPoint(later); p != destination && within(destination, p) {
				v += " below " + strconv.Quote(p)
			}
		}
		// Mounts on one destination lie upon each other, in this order.
		if under, ok := f[fieldMount+destination]; ok {
			v = under + ", then " + v
		}
		f[fieldMount+destination] = v
	}
}

// IsOwnFile says that the file mounted at destination tells a container of itself and its
// surroundings, and is made anew for each by containerd's clients and the kubelet.
func IsOwnFile(destination string) bool {
	return destination == "/etc/hostname" || destination == "/etc/hosts" || destination == "/etc/resolv.conf"
}

// BindSource returns what the container binds to destination; ok is false if it binds nothing there.
func BindSource(mounts []specs.Mount, destination string) (source string, ok bool) {
	// The last one lies above the others.
	for _, m := range slices.Backward(mounts) {
		if mountPoint(m) == destination {
			return m.Source, isBind(m)
		}
	}
	return "", false
}

// mountPoint is the mount's destination; a relative one counts from the root, as
// in libcontainer.
func mountPoint(m specs.Mount) string { return filepath.Join("/", m.Destination) }

// within says that path is dir or lies below it; both are clean and absolute.
func within(path, dir string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir+"/")
}

// isBind says that a mount binds a path of the host, whether its type or one of
// its options says so.
func isBind(m specs.Mount) bool {
	return m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
}

// isIDMapped says that a mount shows its files' owners mapped.
func isIDMapped(m specs.Mount) bool {
	return len(m.UIDMappings) > 0 || len(m.GIDMappings) > 0 ||
		slices.Contains(m.Options, "idmap") || slices.Contains(m.Options, "ridmap")
}

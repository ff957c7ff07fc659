package checkpoint

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"slices"
)

// Fingerprint is what of a container must be equal for a checkpoint to fit it,
// field by field, so that a near miss can be named.
//
// Names are stable and readable ("args", "env.PATH", "mount./proc"); a value is
// either the plain setting or, where it may hold a secret, its digest. An
// absent field differs from an empty one.
type Fingerprint map[string]string

// Key is the digest under which the store files a checkpoint: 64 hexadecimal digits.
func (f Fingerprint) Key() string {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(f)) {
		// Lengths make the encoding injective, whatever the values hold.
		fmt.Fprintf(h, "%d:%s%d:", len(name), name, len(f[name]))
		io.WriteString(h, f[name])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// OwnerKey is the digest under which the store files the resume points of an owner.
// It is never that of a fingerprint.
func OwnerKey(owner string) string {
	sum := sha256.Sum256([]byte("owner\x00" + owner))
	return hex.EncodeToString(sum[:])
}

// Diff returns the names of the fields in which f and other differ, sorted.
func (f Fingerprint) Diff(other Fingerprint) []string {
	var names []string
	for name, v := range f {
		if o, ok := other[name]; !ok || o != v {
			names = append(names, name)
		}
	}
	for name := range other {
		if _, ok := f[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// HostFacts is what a node offers, or must offer, for a restore.
type HostFacts struct {
	// Arch is GOARCH.
	Arch string `json:"arch"`
	// Kernel is the release as uname prints it.
	Kernel string `json:"kernel"`
	// CPUFeatures are the processor's flags as the kernel names them, sorted.
	CPUFeatures []string `json:"cpuFeatures,omitempty"`
	// CRIU is the version as major*10000 + minor*100 + patch; 0 if there is none.
	CRIU int `json:"criu"`
	// Cgroup is "v1" or "v2".
	Cgroup string `json:"cgroup"`
}

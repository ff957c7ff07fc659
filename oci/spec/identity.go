package spec

import (
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/containerd-snap/snap/checkpoint"
)

// MountIdentity adds to the container's mounts the one that setting identity
// asks for, of the directory source; nothing if it asks for none. It comes before
// the fingerprint, of which mounts are a part. Errors are checkpoint.ErrInvalid.
func (s *Settings) MountIdentity(oci *specs.Spec, source string) error {
	if s.Identity == "" {
		return nil
	}
	for _, m := range oci.Mounts {
		if mountPoint(m) == s.Identity {
			return fmt.Errorf("%w setting identity=%q: the spec mounts something else there; choose another path", checkpoint.ErrInvalid, s.Identity)
		}
	}
	oci.Mounts = append(oci.Mounts, specs.Mount{
		Destination: s.Identity, Type: "bind", Source: source,
		Options: []string{"rbind", "rprivate", "ro", "nosuid", "nodev", "noexec"},
	})
	return nil
}

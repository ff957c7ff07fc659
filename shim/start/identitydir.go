package start

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/containerd-snap/snap/oci/spec"
	"github.com/containerd-snap/snap/shim/libct"
)

// identityDir is a directory that is mounted into the container, read-only, and
// tells the program who it is now: what a restored program cannot learn from
// its environment, which is that of the captured one. What VMGenID is for
// virtual machines.
type identityDir struct {
	// dir is the directory on the host, below the bundle: it goes with it.
	dir string
	// uid and gid are the program's user, on the host.
	uid, gid int
}

// The files of the directory. Those that say nothing yet are empty.
const (
	// fileGeneration holds a new random identifier at every start.
	fileGeneration = "generation"
	fileHostname   = "hostname"
	// fileEnv holds the new container's environment, in the format of /proc/PID/environ.
	fileEnv = "env"
	// fileCheckpoint holds the digest of the checkpoint that the task is restored
	// from; empty for a boot.
	fileCheckpoint = "checkpoint"
	// fileRestoredAt holds the time of the restore (RFC 3339); empty for a boot.
	fileRestoredAt = "restored-at"
)

// newIdentityDir makes the directory of a container that asks for it, and adds
// its mount to the spec. Nil for one that does not.
func newIdentityDir(bundle string, settings spec.Settings, oci *specs.Spec) (*identityDir, error) {
	if settings.Identity == "" {
		return nil, nil
	}
	d := &identityDir{dir: filepath.Join(bundle, "identity")}
	if err := settings.MountIdentity(oci, d.dir); err != nil {
		return nil, err
	}
	d.uid = hostID(oci.Process.User.UID, oci.Linux.UIDMappings)
	d.gid = hostID(oci.Process.User.GID, oci.Linux.GIDMappings)
	if err := os.Mkdir(d.dir, 0o500); err != nil {
		return nil, err
	}
	if err := os.Chown(d.dir, d.uid, d.gid); err != nil {
		return nil, err
	}
	return d, nil
}

// hostID is the host's number of a user or group of the container.
func hostID(id uint32, mappings []specs.LinuxIDMapping) int {
	for _, m := range mappings {
		if m.ContainerID <= id && id-m.ContainerID < m.Size {
			return int(m.HostID + id - m.ContainerID)
		}
	}
	return int(id)
}

// write says anew who the container is. Digest is that of the checkpoint, and
// empty for a boot. Precondition: the program does not run.
func (d *identityDir) write(oci *specs.Spec, digest string) error {
	if d == nil {
		return nil
	}
	hostname, err := libct.Hostname(oci)
	if err != nil {
		return err
	}
	restoredAt := ""
	if digest != "" {
		restoredAt = time.Now().UTC().Format(time.RFC3339Nano)
	}
	var errs []error
	for name, content := range map[string]string{
		fileGeneration: line(rand.Text()),
		fileHostname:   line(hostname),
		fileEnv:        strings.Join(append(oci.Process.Env, ""), "\x00"),
		fileCheckpoint: line(digest),
		fileRestoredAt: line(restoredAt),
	} {
		errs = append(errs, d.put(name, content))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("write the container's identity: %w", err)
	}
	return nil
}

// put writes a file that the program's user alone may read: the environment
// often holds secrets.
func (d *identityDir) put(name, content string) error {
	path := filepath.Join(d.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o400); err != nil {
		return err
	}
	return os.Chown(path, d.uid, d.gid)
}

func line(s string) string {
	if s == "" {
		return ""
	}
	return s + "\n"
}

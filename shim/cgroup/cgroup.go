// Package cgroup reads what a container's cgroup says: its metrics, in
// containerd's types, and that the kernel killed for lack of memory.
//
// It works on cgroup v1 and v2. Making and changing cgroups is libcontainer's.
package cgroup

import (
	"fmt"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/containerd/errdefs"
)

// Cgroup is the cgroup of one container.
type Cgroup struct {
	v1 cgroup1.Cgroup
	v2 *cgroup2.Manager
}

// Load finds the cgroup that pid is in.
func Load(pid int) (*Cgroup, error) {
	if cgroups.Mode() == cgroups.Unified {
		path, err := cgroup2.PidGroupPath(pid)
		if err != nil {
			return nil, fmt.Errorf("find the cgroup of process %d: %w", pid, err)
		}
		m, err := cgroup2.Load(path)
		if err != nil {
			return nil, fmt.Errorf("load cgroup %s: %w", path, err)
		}
		return &Cgroup{v2: m}, nil
	}
	c, err := cgroup1.Load(cgroup1.PidPath(pid))
	if err != nil {
		return nil, fmt.Errorf("load the cgroup of process %d: %w", pid, err)
	}
	return &Cgroup{v1: c}, nil
}

// Stats returns the metrics of cgroup v1 or v2, in the type that containerd's
// clients expect. NotFound on a nil Cgroup.
func (c *Cgroup) Stats() (any, error) {
	switch {
	case c == nil:
		return nil, fmt.Errorf("cgroup does not exist: %w", errdefs.ErrNotFound)
	case c.v2 != nil:
		return c.v2.Stat()
	default:
		return c.v1.Stat(cgroup1.IgnoreNotExist)
	}
}

// EnableControllers makes, on v2, all of the host's controllers available to
// cgroups below this one, as the stock shim does. On v1 it does nothing.
func (c *Cgroup) EnableControllers() error {
	if c == nil || c.v2 == nil {
		return nil
	}
	all, err := c.v2.RootControllers()
	if err != nil {
		return fmt.Errorf("list controllers: %w", err)
	}
	if err := c.v2.ToggleControllers(all, cgroup2.Enable); err != nil {
		return fmt.Errorf("enable controllers %v: %w", all, err)
	}
	return nil
}

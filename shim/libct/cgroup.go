package libct

import (
	"fmt"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/manager"
	"github.com/opencontainers/runc/libcontainer/specconv"
)

// cgroupManager returns the manager of the cgroup that the container has, or
// would have.
func (s *Spec) cgroupManager() (cgroups.Manager, error) {
	cg, err := specconv.CreateCgroupConfig(s.createOpts(), nil)
	if err != nil {
		return nil, fmt.Errorf("convert the cgroup of container %s: %w", s.ID, err)
	}
	cm, err := manager.New(cg)
	if err != nil {
		return nil, fmt.Errorf("open the cgroup of container %s: %w", s.ID, err)
	}
	return cm, nil
}

package libct

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Update changes the container's resources: what r sets replaces what was
// set, what it leaves out stays.
func (c *Container) Update(r *specs.LinuxResources) error {
	merged, err := mergeResources(c.resources, r)
	if err != nil {
		return err
	}
	spec := *c.spec.OCI
	linux := *spec.Linux
	linux.Resources = &merged
	spec.Linux = &linux
	s := c.spec
	s.OCI = &spec
	cg, err := specconv.CreateCgroupConfig(s.createOpts(), nil)
	if err != nil {
		return fmt.Errorf("convert resources: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	// On a view of its own: libcontainer keeps what it is given, and starts no
	// process in a container whose device rules it was told to leave alone.
	view, err := libcontainer.Load(c.root, c.spec.ID)
	if err != nil {
		return fmt.Errorf("load container %s: %w", c.spec.ID, err)
	}
	cfg := view.Config()
	devices := cfg.Cgroups.Resources.Devices
	cgroup := *cfg.Cgroups
	cgroup.Resources = cg.Resources
	cgroup.Resources.Devices = devices
	// Device rules stay as they are: others (device plugins) may have added theirs.
	cgroup.Resources.SkipDevices = true
	cfg.Cgroups = &cgroup
	if err := view.Set(cfg); err != nil {
		return err
	}
	c.resources = merged
	return nil
}

// mergeResources lays the fields that r sets over those of base. A list is
// replaced as a whole.
func mergeResources(base specs.LinuxResources, r *specs.LinuxResources) (specs.LinuxResources, error) {
	var merged specs.LinuxResources
	// As JSON, because an absent field is what both clients and the OCI spec
	// mean by "leave it".
	all, err := object(base)
	if err != nil {
		return merged, err
	}
	changes, err := object(r)
	if err != nil {
		return merged, err
	}
	lay(all, changes)
	data, err := json.Marshal(all)
	if err != nil {
		return merged, err
	}
	if err := json.Unmarshal(data, &merged); err != nil {
		return merged, err
	}
	if m := merged.Memory; m != nil && m.Limit != nil && *m.Limit == -1 && (r.Memory == nil || r.Memory.Swap == nil) {
		// A swap limit without a memory limit is refused by the kernel.
		m.Swap = new(int64)
	}
	if cpu := merged.CPU; cpu != nil && cpu.Idle != nil && cpu.Shares == nil {
		// cpu.weight cannot be written while cpu.idle is set.
		cpu.Shares = new(uint64)
	}
	return merged, nil
}

// object is v as JSON's objects, with numbers as they are.
func object(v any) (map[string]any, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var m map[string]any
	err = dec.Decode(&m)
	return m, err
}

// lay puts the values of over into base, object by object.
func lay(base, over map[string]any) {
	for key, value := range over {
		below, ok := base[key].(map[string]any)
		above, also := value.(map[string]any)
		if ok && also {
			lay(below, above)
		} else {
			base[key] = value
		}
	}
}

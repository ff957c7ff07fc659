package cri

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// limits are those that the tests give their containers.
func limits(memory, quota, shares int64) *runtimeapi.LinuxContainerResources {
	return &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: memory, CpuPeriod: 100000, CpuQuota: quota, CpuShares: shares, OomScoreAdj: 500}
}

// TestStats: what a container and a pod use.
func TestStats(t *testing.T) {
	each(t, func(t *testing.T, handler string) {
		p := runPod(t, handler)
		c := p.start("busy", probeImage, []string{"/bin/probe", "-listen", "0.0.0.0:7000", "-memory", "50"})
		c.probe()
		c.hasStats(50 << 20)
		p.startShell("other", forever)
		p.hasStats(50<<20, 2)
		// A node's summary.
		all, err := runtime.ListContainerStats(testContext(t), &runtimeapi.ContainerStatsFilter{PodSandboxId: p.id})
		if err != nil || len(all) != 2 {
			t.Errorf("stats of %d containers, %v", len(all), err)
		}
	})
}

// hasStats checks the statistics of a container that holds at least this much memory.
func (c *container) hasStats(memory uint64) {
	c.t.Helper()
	eventually(c.t, func() error {
		s, err := runtime.ContainerStats(testContext(c.t), c.id)
		if err != nil {
			return err
		}
		if s.GetCpu().GetUsageCoreNanoSeconds().GetValue() == 0 || s.GetMemory().GetWorkingSetBytes().GetValue() < memory || s.GetMemory().GetUsageBytes().GetValue() < memory ||
			s.GetMemory().GetRssBytes().GetValue() < memory || s.GetAttributes().GetId() != c.id {
			return fmt.Errorf("stats of the container: %v", s)
		}
		return nil
	})
}

// hasStats checks the statistics of the pod.
func (p *pod) hasStats(memory uint64, containers int) {
	p.t.Helper()
	eventually(p.t, func() error {
		s, err := runtime.PodSandboxStats(testContext(p.t), p.id)
		if err != nil {
			return err
		}
		l := s.GetLinux()
		if l.GetCpu().GetUsageCoreNanoSeconds().GetValue() == 0 || l.GetMemory().GetWorkingSetBytes().GetValue() < memory || len(l.GetContainers()) != containers ||
			l.GetNetwork().GetDefaultInterface().GetName() != "eth0" || l.GetNetwork().GetDefaultInterface().GetRxBytes().GetValue() == 0 ||
			// The probe, the shell with its sleep, and pause.
			l.GetProcess().GetProcessCount().GetValue() < 3 {
			return fmt.Errorf("stats of the pod: %v", s)
		}
		return nil
	})
}

// TestUpdate changes what a running container may use.
func TestUpdate(t *testing.T) {
	each(t, func(t *testing.T, handler string) {
		p := runPod(t, handler)
		c := p.startProbe("a", func(c *runtimeapi.ContainerConfig) { c.Linux.Resources = limits(100<<20, 50000, 512) })
		c.probe()
		c.hasLimits(100<<20, 50000, 512)
		c.update(200<<20, 20000, 256)
		c.probe()
	})
}

// update gives the container other limits, and looks whether they hold.
func (c *container) update(memory, quota, shares int64) {
	c.t.Helper()
	if err := runtime.UpdateContainerResources(testContext(c.t), c.id, &runtimeapi.ContainerResources{Linux: limits(memory, quota, shares)}); err != nil {
		c.t.Fatal(err)
	}
	c.hasLimits(memory, quota, shares)
	st, _ := c.status()
	if r := st.GetResources().GetLinux(); r.GetMemoryLimitInBytes() != memory || r.GetCpuQuota() != quota || r.GetCpuShares() != shares {
		c.t.Errorf("the status says %v", r)
	}
}

// hasLimits looks at the container's cgroup.
func (c *container) hasLimits(memory, quota, shares int64) {
	c.t.Helper()
	dir := filepath.Join(c.pod.config.GetLinux().GetCgroupParent(), c.id)
	want := map[string]string{
		"memory" + dir + "/memory.limit_in_bytes": strconv.FormatInt(memory, 10),
		"cpu" + dir + "/cpu.cfs_quota_us":         strconv.FormatInt(quota, 10),
		"cpu" + dir + "/cpu.shares":               strconv.FormatInt(shares, 10),
	}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		want = map[string]string{dir + "/memory.max": strconv.FormatInt(memory, 10), dir + "/cpu.max": fmt.Sprint(quota, " ", 100000)}
	}
	for file, value := range want {
		got, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", file))
		if err != nil || strings.TrimSpace(string(got)) != value {
			c.t.Errorf("%s is %q, %v, want %s", file, got, err, value)
		}
	}
}

// TestOOM: a container that takes more memory than it may is ended, and CRI
// tells why.
func TestOOM(t *testing.T) {
	each(t, func(t *testing.T, handler string) {
		p := runPod(t, handler)
		c := p.start("a", probeImage, []string{"/bin/probe", "-memory", "100"}, func(c *runtimeapi.ContainerConfig) {
			c.Linux.Resources = limits(30<<20, 0, 256)
		})
		if st := c.ended(); st.GetReason() != "OOMKilled" || st.GetExitCode() != 137 {
			t.Errorf("reason %s, exit code %d", st.GetReason(), st.GetExitCode())
		}
		p.startShell("b", forever).run("true")
	})
}

package cri

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// pod is a pod of a test, with the directory that a kubelet would keep for it.
type pod struct {
	t       *testing.T
	handler string
	id      string
	dir     string
	config  *runtimeapi.PodSandboxConfig
	// made counts the containers.
	made int
}

// container is a container of a pod.
type container struct {
	pod    *pod
	t      *testing.T
	id     string
	config *runtimeapi.ContainerConfig
}

var serial atomic.Int64

// runPod runs a pod's sandbox. It is removed, with all of it, when the test ends.
func runPod(t *testing.T, handler string, change ...func(*runtimeapi.PodSandboxConfig)) *pod {
	t.Helper()
	p := newPod(t, handler, change...)
	var err error
	if p.id, err = runtime.RunPodSandbox(testContext(t), p.config, handler); err != nil {
		t.Fatal(err)
	}
	return p
}

// newPod is a pod that does not run yet.
func newPod(t *testing.T, handler string, change ...func(*runtimeapi.PodSandboxConfig)) *pod {
	t.Helper()
	n := serial.Add(1)
	p := &pod{t: t, handler: handler, dir: t.TempDir()}
	p.config = &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: "pod", Namespace: "default", Uid: fmt.Sprint("uid-", n)},
		Hostname:     fmt.Sprint("pod-", n),
		LogDirectory: filepath.Join(p.dir, "logs"),
		DnsConfig:    &runtimeapi.DNSConfig{Servers: []string{fmt.Sprint("10.96.0.", n%250+1)}},
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			// The pod's cgroup is the kubelet's to make and to remove.
			CgroupParent:    fmt.Sprintf("/%s/pod%d", node.CgroupParent, n),
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}},
		},
	}
	for _, c := range change {
		c(p.config)
	}
	for _, dir := range []string{"logs", "etc"} {
		if err := os.Mkdir(filepath.Join(p.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			p.tell()
		}
		if err := p.remove(); err != nil {
			left, lerr := node.Leftovers()
			t.Errorf("remove pod %s: %v; on the node (%v):\n%s", p.id, err, lerr, left)
		}
	})
	return p
}

// remove removes the pod as a kubelet does: stop, remove, the pod's cgroup.
// Nothing of it need exist.
func (p *pod) remove() error {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	var errs []error
	if p.id != "" {
		errs = append(errs, runtime.StopPodSandbox(ctx, p.id), runtime.RemovePodSandbox(ctx, p.id))
	}
	if p.handler == runc {
		// The stock shim leaves it where a sandbox has ended before its containers.
		_ = os.Remove(filepath.Join(node.Dir, "s", socketName(p.id)))
	}
	for _, pattern := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		dirs, err := filepath.Glob(filepath.Join(pattern, p.config.GetLinux().GetCgroupParent()))
		errs = append(errs, err)
		for _, dir := range dirs {
			errs = append(errs, os.Remove(dir))
		}
	}
	return errors.Join(errs...)
}

// tell logs what containerd and the shims said of a failed test's pod.
func (p *pod) tell() {
	log, err := node.Log()
	if err != nil || p.id == "" {
		return
	}
	for line := range strings.Lines(log) {
		if strings.Contains(line, p.id) && !strings.Contains(line, "level=info") {
			p.t.Log(strings.TrimSpace(line))
		}
	}
}

// file makes a file of the pod's, as a kubelet does, and returns its path.
func (p *pod) file(name, content string) string {
	p.t.Helper()
	path := filepath.Join(p.dir, "etc", name)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		p.t.Fatal(err)
	}
	return path
}

// create makes a container of the pod, with the files and variables that a
// kubelet gives every container: they differ from pod to pod, and from one
// container to the one that takes its place.
func (p *pod) create(name, image string, args []string, change ...func(*runtimeapi.ContainerConfig)) *container {
	p.t.Helper()
	c, err := p.tryCreate(name, image, args, change...)
	if err != nil {
		p.t.Fatal(err)
	}
	return c
}

func (p *pod) tryCreate(name, image string, args []string, change ...func(*runtimeapi.ContainerConfig)) (*container, error) {
	p.made++
	attempt := uint32(p.made)
	service := fmt.Sprint("10.97.0.", serial.Load()%250+1)
	c := &container{pod: p, t: p.t, config: &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: name, Attempt: attempt},
		Image:    &runtimeapi.ImageSpec{Image: image},
		Command:  args,
		Envs: []*runtimeapi.KeyValue{
			// What a test registers fits no other test's container.
			{Key: "SNAP_TEST", Value: []byte(p.t.Name())},
			{Key: "KUBERNETES_SERVICE_HOST", Value: []byte(service)},
			{Key: "KUBERNETES_SERVICE_PORT", Value: []byte("443")},
			{Key: "KUBERNETES_SERVICE_PORT_HTTPS", Value: []byte("443")},
			{Key: "KUBERNETES_PORT", Value: []byte("tcp://" + service + ":443")},
			{Key: "KUBERNETES_PORT_443_TCP", Value: []byte("tcp://" + service + ":443")},
			{Key: "KUBERNETES_PORT_443_TCP_PROTO", Value: []byte("tcp")},
			{Key: "KUBERNETES_PORT_443_TCP_PORT", Value: []byte("443")},
			{Key: "KUBERNETES_PORT_443_TCP_ADDR", Value: []byte(service)},
		},
		Mounts: []*runtimeapi.Mount{
			{ContainerPath: "/etc/hosts", HostPath: p.file("hosts", "127.0.0.1 localhost\n# "+p.config.GetHostname()+"\n")},
			{ContainerPath: "/dev/termination-log", HostPath: p.file(fmt.Sprintf("%s-%d", name, serial.Add(1)), "")},
		},
		LogPath: fmt.Sprintf("%s-%d.log", name, attempt),
		Linux: &runtimeapi.LinuxContainerConfig{
			Resources:       &runtimeapi.LinuxContainerResources{CpuShares: 256, OomScoreAdj: 500},
			SecurityContext: &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: p.config.GetLinux().GetSecurityContext().GetNamespaceOptions()},
		},
	}}
	for _, f := range change {
		f(c.config)
	}
	var err error
	c.id, err = runtime.CreateContainer(testContext(p.t), p.id, c.config, p.config)
	return c, err
}

// start makes a container and starts it.
func (p *pod) start(name, image string, args []string, change ...func(*runtimeapi.ContainerConfig)) *container {
	p.t.Helper()
	c := p.create(name, image, args, change...)
	c.start()
	return c
}

// startProbe starts a container that runs the probe.
func (p *pod) startProbe(name string, change ...func(*runtimeapi.ContainerConfig)) *container {
	p.t.Helper()
	return p.start(name, probeImage, []string{"/bin/probe", "-listen", "0.0.0.0:7000"}, change...)
}

// startShell starts a container that runs a script in busybox.
func (p *pod) startShell(name, script string, change ...func(*runtimeapi.ContainerConfig)) *container {
	p.t.Helper()
	return p.start(name, busyboxImage, []string{"sh", "-c", script}, change...)
}

// forever is a script that ends when it is told to.
const forever = "trap 'exit 3' TERM; while :; do sleep 0.1; done"

// info is what CRI tells about a container or sandbox beside its status.
type info struct {
	Pid         int             `json:"pid"`
	RuntimeSpec json.RawMessage `json:"runtimeSpec"`
}

// status of the pod.
func (p *pod) status() (*runtimeapi.PodSandboxStatus, info) {
	p.t.Helper()
	r, err := runtime.PodSandboxStatus(testContext(p.t), p.id, true)
	if err != nil {
		p.t.Fatal(err)
	}
	return r.GetStatus(), parseInfo(p.t, r.GetInfo())
}

// address of the pod.
func (p *pod) address() string {
	p.t.Helper()
	st, _ := p.status()
	return st.GetNetwork().GetIp()
}

func (c *container) start() {
	c.t.Helper()
	if err := runtime.StartContainer(testContext(c.t), c.id); err != nil {
		c.t.Fatal(err)
	}
}

// stop stops the container, with a grace of some seconds.
func (c *container) stop(grace int64) {
	c.t.Helper()
	if err := runtime.StopContainer(testContext(c.t), c.id, grace); err != nil {
		c.t.Fatal(err)
	}
}

func (c *container) remove() {
	c.t.Helper()
	if err := runtime.RemoveContainer(testContext(c.t), c.id); err != nil {
		c.t.Fatal(err)
	}
}

func (c *container) status() (*runtimeapi.ContainerStatus, info) {
	c.t.Helper()
	r, err := runtime.ContainerStatus(testContext(c.t), c.id, true)
	if err != nil {
		c.t.Fatal(err)
	}
	return r.GetStatus(), parseInfo(c.t, r.GetInfo())
}

func parseInfo(t *testing.T, in map[string]string) info {
	t.Helper()
	var i info
	if err := json.Unmarshal([]byte(in["info"]), &i); err != nil {
		t.Fatalf("read %q: %v", in["info"], err)
	}
	return i
}

// pid is that of the container's init.
func (c *container) pid() int {
	c.t.Helper()
	_, i := c.status()
	return i.Pid
}

// ended waits until the container has ended.
func (c *container) ended() *runtimeapi.ContainerStatus {
	c.t.Helper()
	var st *runtimeapi.ContainerStatus
	eventually(c.t, func() error {
		if st, _ = c.status(); st.GetState() != runtimeapi.ContainerState_CONTAINER_EXITED {
			return fmt.Errorf("container %s is %s", c.id, st.GetState())
		}
		return nil
	})
	return st
}

// run runs a command in the container; it must succeed. It returns its output.
func (c *container) run(args ...string) string {
	c.t.Helper()
	stdout, stderr, err := runtime.ExecSync(testContext(c.t), c.id, args, deadline)
	if err != nil {
		c.t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, stderr)
	}
	return string(stdout)
}

// each runs a test under our handler and under the stock one.
func each(t *testing.T, test func(t *testing.T, handler string)) {
	t.Parallel()
	for _, handler := range []string{snap, runc} {
		t.Run(handler, func(t *testing.T) {
			t.Parallel()
			test(t, handler)
		})
	}
}

// testContext returns a context that ends with the test, and after the deadline.
func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	t.Cleanup(cancel)
	return ctx
}

// eventually calls check until it returns nil, and fails after the deadline.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	for end := time.Now().Add(deadline); ; time.Sleep(20 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

package cri

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestPortForward reaches a program that listens on the pod's loopback only.
func TestPortForward(t *testing.T) {
	each(t, func(t *testing.T, handler string) {
		p := runPod(t, handler)
		p.start("web", probeImage, []string{"/bin/probe", "-listen", "127.0.0.1:7000"}).logHas("booted")
		p.forward()
	})
}

// forward checks that a forwarded port answers, several times.
func (p *pod) forward() {
	p.t.Helper()
	r, err := runtime.PortForward(testContext(p.t), &runtimeapi.PortForwardRequest{PodSandboxId: p.id, Port: []int32{7000}})
	if err != nil {
		p.t.Fatal(err)
	}
	u, err := url.Parse(r.GetUrl())
	if err != nil {
		p.t.Fatal(err)
	}
	transport, upgrader, err := spdy.RoundTripperFor(&rest.Config{})
	if err != nil {
		p.t.Fatal(err)
	}
	stop, ready, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	dialer := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, u)
	f, err := portforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, []string{"0:7000"}, stop, ready, io.Discard, io.Discard)
	if err != nil {
		p.t.Fatal(err)
	}
	go func() { done <- f.ForwardPorts() }()
	select {
	case <-ready:
	case err := <-done:
		p.t.Fatal(err)
	case <-time.After(deadline):
		p.t.Fatal("the port is not forwarded in time")
	}
	ports, err := f.GetPorts()
	if err != nil {
		p.t.Fatal(err)
	}
	for range 3 {
		eventually(p.t, func() error {
			s, err := askAt(p.t, fmt.Sprintf("127.0.0.1:%d", ports[0].Local))
			if err == nil && s.Hostname != p.config.GetHostname() {
				return fmt.Errorf("%s answers, not %s", s.Hostname, p.config.GetHostname())
			}
			return err
		})
	}
	close(stop)
	if err := <-done; err != nil {
		p.t.Error(err)
	}
}

// TestHostPort reaches a pod at a port of its node.
func TestHostPort(t *testing.T) {
	each(t, func(t *testing.T, handler string) {
		port := map[string]int32{snap: 7101, runc: 7102}[handler]
		p := runPod(t, handler, func(c *runtimeapi.PodSandboxConfig) {
			c.PortMappings = []*runtimeapi.PortMapping{{HostPort: port, ContainerPort: 7000, Protocol: runtimeapi.Protocol_TCP}}
		})
		p.startProbe("web").probe()
		eventually(t, func() error {
			s, err := askAt(t, fmt.Sprintf("127.0.0.1:%d", port))
			if err == nil && s.Hostname != p.config.GetHostname() {
				return fmt.Errorf("%s answers, not %s", s.Hostname, p.config.GetHostname())
			}
			return err
		})
	})
}

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/test/harness"
)

// surroundings are what the suite finds around itself.
type surroundings struct {
	dir      string // all files of the run are below it
	tools    string // what tools/setup/conformance made
	registry *registry
	server   *http.Server
	served   chan error
	// mounts are the mount points before a test runs, cgroups the roots of the hierarchies.
	mounts, cgroups []string
}

// The suite's own directories, which cannot be chosen.
const (
	suiteState = "/run/containerd-test"
	suiteRoot  = "/var/lib/containerd-test"
)

// surround makes a registry under the names that the suite pulls from, an
// empty /var/lib and a configuration for our shim.
func surround(ctx context.Context, tools string, cgroups []string) (_ *surroundings, err error) {
	s := &surroundings{tools: filepath.Join(tools, "conformance"), cgroups: cgroups, served: make(chan error, 1)}
	if s.registry, err = loadRegistry(filepath.Join(s.tools, "images")); err != nil {
		return nil, err
	}
	if s.dir, err = os.MkdirTemp("", "snap-conformance-"); err != nil {
		return nil, fmt.Errorf("make a directory for the run: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.remove())
		}
	}()
	for _, name := range []string{"lib", "tmp"} {
		if err := os.Mkdir(s.path(name), 0o755); err != nil {
			return nil, fmt.Errorf("make a directory for the run: %w", err)
		}
	}
	if err := unix.Mount(s.path("lib"), filepath.Dir(suiteRoot), "", unix.MS_BIND, ""); err != nil {
		return nil, fmt.Errorf("mount an empty %s: %w", filepath.Dir(suiteRoot), err)
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return nil, fmt.Errorf("set up the loopback interface: %w", err)
	}
	if err := s.serve(ctx); err != nil {
		return nil, err
	}
	if err := s.configure(); err != nil {
		return nil, err
	}
	s.mounts, err = mountPoints()
	return s, err
}

func (s *surroundings) path(name string) string { return filepath.Join(s.dir, name) }

// serve starts the registry, and makes its names lead to it.
func (s *surroundings) serve(ctx context.Context) error {
	certificate, authority, err := certify(s.registry.hosts())
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.path("ca.pem"), authority, 0o644); err != nil {
		return fmt.Errorf("write the certificate: %w", err)
	}
	hosts := "127.0.0.1 localhost " + strings.Join(s.registry.hosts(), " ") + "\n"
	if err := os.WriteFile(s.path("hosts"), []byte(hosts), 0o644); err != nil {
		return fmt.Errorf("write the hosts file: %w", err)
	}
	if err := unix.Mount(s.path("hosts"), "/etc/hosts", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount a hosts file: %w", err)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:443")
	if err != nil {
		return fmt.Errorf("start the registry: %w", err)
	}
	s.server = &http.Server{
		Handler:           s.registry,
		ReadHeaderTimeout: time.Minute,
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12},
	}
	go func() { s.served <- s.server.ServeTLS(listener, "", "") }()
	return nil
}

// configure writes what the suite and our shim read.
func (s *surroundings) configure() error {
	busybox, tag := "", ":1.36"
	for name, d := range s.registry.images {
		if repository, ok := strings.CutSuffix(name, "/busybox"+tag); ok {
			busybox = repository + "/busybox@" + d.Digest.String()
		}
	}
	if busybox == "" {
		return fmt.Errorf("find the image that the suite runs: there is no busybox%s", tag)
	}
	for name, text := range map[string]string{
		// The image whose digest the suite knows cannot be made, so it is told another.
		"images.toml": fmt.Sprintf("BusyBoxByDigest = %q\n", busybox),
		"snap.toml":   string(harness.ShimConfig(s.path("store"))),
	} {
		if err := os.WriteFile(s.path(name), []byte(text), 0o600); err != nil {
			return fmt.Errorf("write the configuration: %w", err)
		}
	}
	return nil
}

// remove ends the registry and removes all files.
func (s *surroundings) remove() error {
	var errs []error
	if s.server != nil {
		errs = append(errs, s.server.Close())
		if err := <-s.served; !errors.Is(err, http.ErrServerClosed) {
			errs = append(errs, fmt.Errorf("serve images: %w", err))
		}
	}
	for _, name := range []string{filepath.Dir(suiteRoot), "/etc/hosts"} {
		if err := unix.Unmount(name, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", name, err))
		}
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/test/harness"
)

const (
	settleTimeout = 10 * time.Second
	pollInterval  = 50 * time.Millisecond
)

// leftovers is what exists on behalf of containers that the suite made.
type leftovers struct {
	processes []harness.Process
	mounts    []string
	cgroups   []string
	files     []string
}

func (l leftovers) empty() bool {
	return len(l.processes)+len(l.mounts)+len(l.cgroups)+len(l.files) == 0
}

func (l *leftovers) add(m leftovers) {
	l.processes = append(l.processes, m.processes...)
	l.mounts = append(l.mounts, m.mounts...)
	l.cgroups = append(l.cgroups, m.cgroups...)
	l.files = append(l.files, m.files...)
}

func (l leftovers) String() string {
	var b strings.Builder
	for _, p := range l.processes {
		fmt.Fprintf(&b, "process %s\n", p)
	}
	for _, m := range l.mounts {
		fmt.Fprintf(&b, "mount %s\n", m)
	}
	for _, c := range l.cgroups {
		fmt.Fprintf(&b, "cgroup %s\n", c)
	}
	for _, f := range l.files {
		fmt.Fprintf(&b, "file %s\n", f)
	}
	return b.String()
}

// settle waits until nothing is left, but not for long, and returns what is.
func (s *surroundings) settle(ctx context.Context) (leftovers, error) {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	for {
		l, err := s.leftovers()
		if err != nil || l.empty() {
			return l, err
		}
		select {
		case <-ctx.Done():
			return l, nil
		case <-time.After(pollInterval):
		}
	}
}

// leftovers looks for what is there now.
func (s *surroundings) leftovers() (leftovers, error) {
	var l leftovers
	all, err := harness.Processes()
	if err != nil {
		return l, err
	}
	for _, p := range all {
		// The process namespace holds nothing but the suite's, the first process
		// and this one. A zombie is for the first to bury.
		if p.PID != 1 && p.PID != os.Getpid() && p.State != "Z" {
			l.processes = append(l.processes, p)
		}
	}
	mounts, err := mountPoints()
	if err != nil {
		return l, err
	}
	for _, m := range mounts {
		if !slices.Contains(s.mounts, m) {
			l.mounts = append(l.mounts, m)
		}
	}
	for _, root := range s.cgroups {
		all, err := below(root)
		if err != nil {
			return l, err
		}
		for _, dir := range all {
			// On the top are those of namespaces, which stay under every runtime. The
			// suite makes some for shims, and removes them while a shim may still end.
			if filepath.Dir(dir) != root && filepath.Dir(dir) != filepath.Join(root, "containerd") {
				l.cgroups = append(l.cgroups, dir)
			}
		}
	}
	// Directories of namespaces stay, under every runtime.
	for _, pattern := range []string{
		filepath.Join(suiteState, "io.containerd.runtime.v2.task/*/*"),
		filepath.Join(suiteRoot, "io.containerd.runtime.v2.task/*/*"),
		"/run/containerd/s/*",
		"/run/containerd/runc/*/*",
		"/run/containerd/snap/*/*",
		s.path("store/drafts/*"),
		s.path("store/trash/*"),
	} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			return l, err
		}
		l.files = append(l.files, names...)
	}
	return l, nil
}

// mountPoints lists those of this mount namespace, innermost last.
func mountPoints() ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var found []string
	scanner := bufio.NewScanner(f)
	for scanner.Scan() {
		if fields := strings.Fields(scanner.Text()); len(fields) > 4 {
			found = append(found, fields[4])
		}
	}
	return found, scanner.Err()
}

// clear ends and removes what a run of the suite left, so that the next finds
// the same as the first.
func (s *surroundings) clear(ctx context.Context) error {
	var errs []error
	// More than one round: a process that is killed may be making another.
	for range 100 {
		l, err := s.leftovers()
		if err != nil {
			return err
		}
		if len(l.processes) == 0 {
			break
		}
		for _, p := range l.processes {
			_ = unix.Kill(p.PID, unix.SIGKILL)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pollInterval):
		}
	}
	l, err := s.leftovers()
	errs = append(errs, err)
	for _, m := range slices.Backward(l.mounts) {
		if err := unix.Unmount(m, unix.MNT_DETACH); err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: %w", m, err))
		}
	}
	for _, root := range s.cgroups {
		all, err := below(root)
		errs = append(errs, err)
		for _, dir := range slices.Backward(all) {
			if dir != filepath.Join(root, suiteLeaf) {
				errs = append(errs, os.Remove(dir))
			}
		}
	}
	for _, dir := range []string{suiteState, suiteRoot, "/run/containerd", "/run/nri", s.path("store"), s.path("tmp")} {
		errs = append(errs, os.RemoveAll(dir))
	}
	return errors.Join(append(errs, os.Mkdir(s.path("tmp"), 0o755))...)
}

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// hierarchy is a mounted hierarchy of cgroups, and the directory in it that the run
// gets as its own.
type hierarchy struct{ mount, dir string }

// makeCgroups makes a cgroup in every hierarchy. They lie below this process's
// own, whose limits so hold for the run, but in the unified hierarchy at the top:
// a cgroup with processes cannot have others with controllers there.
func makeCgroups() ([]hierarchy, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	var all []hierarchy
	for line := range strings.Lines(string(mounts)) {
		before, after, _ := strings.Cut(line, " - ")
		place, fs := strings.Fields(before), strings.Fields(after)
		if len(place) < 5 || len(fs) < 3 || fs[0] != "cgroup" && fs[0] != "cgroup2" {
			continue
		}
		path := "/"
		if fs[0] == "cgroup" {
			path = ownCgroup(string(own), strings.Split(fs[2], ","))
		}
		rel, err := filepath.Rel(place[3], path)
		if err != nil || strings.HasPrefix(rel, "..") {
			rel = "."
		}
		h := hierarchy{mount: place[4], dir: filepath.Join(place[4], rel, fmt.Sprintf("snap-conformance-%d", os.Getpid()))}
		if err := h.make(); err != nil {
			return all, fmt.Errorf("make a cgroup for the run: %w", err)
		}
		all = append(all, h)
	}
	return all, nil
}

// ownCgroup finds the cgroup of the hierarchy with these mount options in the
// text of /proc/self/cgroup.
func ownCgroup(own string, options []string) string {
	for line := range strings.Lines(own) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) == 3 && slices.Contains(options, strings.Split(f[1], ",")[0]) {
			return f[2]
		}
	}
	return "/"
}

func (h hierarchy) make() error {
	if err := os.Mkdir(h.dir, 0o755); err != nil {
		return err
	}
	// A new cpuset of version 1 has no processors, and lets nobody in.
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		value, err := os.ReadFile(filepath.Join(filepath.Dir(h.dir), name))
		if err != nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(h.dir, name), value, 0o644); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// mountOwn makes the run's cgroup the root of the hierarchy for whoever lives in
// this mount namespace. The process is in that cgroup and in a cgroup namespace.
func (h hierarchy) mountOwn() error {
	// On a path of its own first: the directory lies below the mount that goes.
	const between = "/run/own-cgroup"
	if err := os.MkdirAll(between, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(h.dir, between, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s: %w", h.dir, err)
	}
	if err := unix.Unmount(h.mount, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", h.mount, err)
	}
	if err := unix.Mount(between, h.mount, "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move %s to %s: %w", between, h.mount, err)
	}
	return errors.Join(os.Remove(between), h.leaf())
}

// suiteLeaf is the cgroup of the run's own processes in a hierarchy where only
// leaves can hold processes.
const suiteLeaf = "suite"

// leaf moves the processes that are in the root down, where they must not be.
func (h hierarchy) leaf() error {
	controllers, err := os.ReadFile(filepath.Join(h.mount, "cgroup.controllers"))
	if err != nil || len(strings.TrimSpace(string(controllers))) == 0 {
		return nil // version 1, or a version 2 without controllers
	}
	leaf := filepath.Join(h.mount, suiteLeaf)
	if err := os.Mkdir(leaf, 0o755); err != nil {
		return err
	}
	pids, err := os.ReadFile(filepath.Join(h.mount, "cgroup.procs"))
	if err != nil {
		return err
	}
	for pid := range strings.FieldsSeq(string(pids)) {
		if err := os.WriteFile(filepath.Join(leaf, "cgroup.procs"), []byte(pid), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// join lets the process pid in.
func (h hierarchy) join(pid int) error {
	return os.WriteFile(filepath.Join(h.dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o644)
}

// below lists the cgroups below dir, innermost last.
func below(dir string) ([]string, error) {
	var found []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && d.IsDir() && path != dir {
			found = append(found, path)
		}
		return err
	})
	return found, err
}

// remove removes the run's cgroup and what is below it, whose processes have
// ended a moment ago.
func (h hierarchy) remove() error {
	all, err := below(h.dir)
	if err != nil {
		return err
	}
	for _, dir := range slices.Backward(append([]string{h.dir}, all...)) {
		for deadline := time.Now().Add(settleTimeout); ; time.Sleep(pollInterval) {
			err := unix.Rmdir(dir)
			if err == nil || errors.Is(err, unix.ENOENT) {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("remove cgroup %s: %w", dir, err)
			}
		}
	}
	return nil
}

package harness

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Leftovers is what exists on behalf of a node's containers. While one runs
// there is something of each kind; after the last is deleted there must be nothing.
type Leftovers struct {
	// Processes are shims, CRIU, containers' processes, and their zombies.
	Processes []Process
	// Mounts are mount points below the node's directory, innermost last.
	Mounts []string
	// Cgroups are the directories of the containers' cgroups, innermost last.
	Cgroups []string
	// Files are bundles, sockets and runtime states of containers, and drafts of checkpoints.
	Files []string
}

// Empty says that there is nothing.
func (l Leftovers) Empty() bool {
	return len(l.Processes)+len(l.Mounts)+len(l.Cgroups)+len(l.Files) == 0
}

func (l Leftovers) String() string {
	var b strings.Builder
	for _, p := range l.Processes {
		fmt.Fprintf(&b, "process %s\n", p)
	}
	// One line for a cgroup, whatever the number of hierarchies.
	groups := map[string]bool{}
	for _, dir := range l.Cgroups {
		groups[strings.Join(strings.Split(dir, "/")[4:], "/")] = true
	}
	for what, names := range map[string][]string{"mount": l.Mounts, "cgroup": slices.Sorted(maps.Keys(groups)), "file": l.Files} {
		for _, name := range names {
			fmt.Fprintf(&b, "%s %s\n", what, name)
		}
	}
	return b.String()
}

// Leftovers looks for what exists on behalf of the node's containers now.
func (n *Node) Leftovers() (Leftovers, error) {
	var l Leftovers
	var errs [4]error
	l.Processes, errs[0] = n.processes()
	l.Mounts, errs[1] = n.mounts()
	l.Cgroups, errs[2] = n.cgroups()
	l.Files, errs[3] = n.files()
	return l, errors.Join(errs[:]...)
}

// processes finds those that name the node's directory or its unique name, in
// their arguments or environment, those in a cgroup of the node, and the children
// of either.
func (n *Node) processes() ([]Process, error) {
	all, err := Processes()
	if err != nil {
		return nil, err
	}
	ours := map[int]bool{}
	var found []Process
	// A child may come before its parent where pids have wrapped around.
	for more := true; more; {
		more = false
		for _, p := range all {
			if ours[p.PID] || p.PID == os.Getpid() || n.cmd != nil && p.PID == n.PID() {
				continue
			}
			// A zombie that is not a child of ours is for process 1 to bury.
			if ours[p.PPID] || p.State != "Z" && n.owns(p) {
				ours[p.PID], more = true, true
				found = append(found, p)
			}
		}
	}
	return found, nil
}

func (n *Node) owns(p Process) bool {
	inCgroup := slices.ContainsFunc(p.Cgroups, func(line string) bool { return strings.Contains(line, ":/"+n.CgroupParent+"/") })
	names := slices.ContainsFunc(p.Args, func(arg string) bool {
		return arg == n.unique || strings.HasPrefix(arg, n.Dir+"/")
	})
	// What CRIU leaves when it is killed has neither, but the shim's environment.
	inherits := slices.Contains(p.Env, envConfig+"="+n.SnapConfig())
	// Commands that the harness runs itself name the node, too.
	return inCgroup || (names || inherits) && p.PPID != os.Getpid()
}

// mounts finds mount points below the node's directory.
func (n *Node) mounts() ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var found []string
	for s := bufio.NewScanner(f); s.Scan(); {
		if fields := strings.Fields(s.Text()); len(fields) > 4 && strings.HasPrefix(fields[4], n.Dir+"/") {
			found = append(found, fields[4])
		}
	}
	return found, nil
}

// cgroups finds the directories below the node's cgroup parent, which is made
// with the first container and stays, as under every runtime.
func (n *Node) cgroups() ([]string, error) {
	var found []string
	for _, top := range n.cgroupTops() {
		err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err == nil && d.IsDir() && path != top {
				found = append(found, path)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// cgroupTops are the node's cgroup parent, one a hierarchy.
func (n *Node) cgroupTops() []string {
	var tops []string
	for _, pattern := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		found, err := filepath.Glob(filepath.Join(pattern, n.CgroupParent))
		if err == nil {
			tops = append(tops, found...)
		}
	}
	return tops
}

// files finds what containerd, shims and captures keep per container.
func (n *Node) files() ([]string, error) {
	var found []string
	for _, pattern := range []string{
		n.path("state", "io.containerd.runtime.v2.task", n.Namespace, "*"),
		n.path("root", "io.containerd.runtime.v2.task", n.Namespace, "*"),
		n.path("s", "*"),
		n.path("state", "io.containerd.grpc.v1.cri", "*", "*"),
		n.path("root", "io.containerd.grpc.v1.cri", "*", "*"),
		filepath.Join("/run/containerd/*", n.Namespace, "*"),
		filepath.Join(n.StoreRoot, "drafts", "*"),
		filepath.Join(n.StoreRoot, "trash", "*"),
		filepath.Join(n.StoreRoot, "tmp", "*"),
	} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		found = append(found, names...)
	}
	return found, nil
}

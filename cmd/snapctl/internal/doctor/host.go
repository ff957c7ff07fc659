package doctor

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Host is what of the host bears upon capture and restore, beyond HostFacts.
type Host struct {
	// Hybrid says that there is a v2 hierarchy beside cgroups of v1.
	Hybrid bool
	// UserNamespaces is how many there may be; negative if that is not known.
	UserNamespaces int
	// CRIUFiles are configuration files that CRIU reads in every call, if they are there.
	CRIUFiles []string
	// SELinux says that it is in use.
	SELinux bool
	// Features has each optional feature of CRIU that was tried, and whether it is there.
	Features map[string]bool
}

// features are those of `criu check --feature` that make a difference, with what they
// are for.
var features = []struct{ name, purpose string }{
	{"timens", "boot-time and monotonic clocks that go on in clones"},
	{"uffd-noncoop", "memory=lazy"},
	{"pidfd_store", "dumps that are sure of a process's identity"},
	{"nftables", "network locks by nftables"},
}

// featureTimeout bounds one `criu check --feature`.
const featureTimeout = 5 * time.Second

func probeHost(ctx context.Context, criu string) Host {
	h := Host{UserNamespaces: -1}
	if _, err := os.Stat("/sys/fs/cgroup/unified/cgroup.procs"); err == nil {
		h.Hybrid = true
	}
	if raw, err := os.ReadFile("/proc/sys/user/max_user_namespaces"); err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(raw))); err == nil {
			h.UserNamespaces = n
		}
	}
	files := []string{"/etc/criu/default.conf"}
	if home := os.Getenv("HOME"); home != "" {
		files = append(files, filepath.Join(home, ".criu", "default.conf"))
	}
	for _, f := range files {
		if options(f) {
			h.CRIUFiles = append(h.CRIUFiles, f)
		}
	}
	var fs unix.Statfs_t
	h.SELinux = unix.Statfs("/sys/fs/selinux", &fs) == nil && fs.Type == unix.SELINUX_MAGIC
	if criu == "" {
		return h
	}
	h.Features = map[string]bool{}
	for _, f := range features {
		ctx, cancel := context.WithTimeout(ctx, featureTimeout)
		cmd := exec.CommandContext(ctx, criu, "check", "--feature", f.name)
		cmd.WaitDelay = time.Second
		h.Features[f.name] = cmd.Run() == nil
		cancel()
	}
	return h
}

// options says that a configuration file of CRIU's sets anything.
func options(file string) bool {
	raw, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(raw)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			return true
		}
	}
	return false
}

// more judges the host beyond what decides about a restore.
func (h Host) more() []Check {
	var checks []Check
	for _, f := range h.CRIUFiles {
		checks = append(checks, warning("criu.conf", "empty it, or move what is meant for other programs into a file that they name", "%s changes every call of CRIU, also the runtime's", f))
	}
	if len(h.CRIUFiles) == 0 {
		checks = append(checks, ok("criu.conf", "no file of the host changes what CRIU does for the runtime"))
	}
	var have, lack []string
	for _, f := range features {
		there, tried := h.Features[f.name]
		switch {
		case there:
			have = append(have, f.name)
		case tried:
			lack = append(lack, f.name+" ("+f.purpose+")")
		}
	}
	if len(lack) > 0 {
		checks = append(checks, warning("features", "a newer kernel, or a CRIU that was built with it, if it is wanted", "missing here: %s", strings.Join(lack, ", ")))
	}
	if len(have) > 0 {
		checks = append(checks, ok("features", "%s", strings.Join(slices.Sorted(slices.Values(have)), ", ")))
	}
	switch {
	case h.UserNamespaces == 0:
		checks = append(checks, ok("user namespaces", "turned off on this host"))
	case h.UserNamespaces > 0:
		checks = append(checks, ok("user namespaces", "available; containers that have one boot always"))
	}
	if h.SELinux {
		checks = append(checks, warning("selinux", "give containers that are to share checkpoints one label, with the same categories",
			"containerd gives each container categories of its own by default, and a checkpoint fits only a container with the same label"))
	}
	return checks
}

package doctor

import (
	"errors"
	"fmt"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/criu"
)

// inetCRIU is the first version that dumps internet sockets on a kernel from
// 6.16 on; see package checkpoint/criu.
const inetCRIU = 40200

// checks judges the node.
func (n Node) checks() []Check {
	if n.UID != 0 {
		return []Check{problem("root", "run it as root", "only root can look at CRIU, the kernel and the store (this is uid %d)", n.UID)}
	}
	checks := n.host()
	checks = append(checks, n.criu()...)
	checks = append(checks, n.Host.more()...)
	checks = append(checks, n.containerd()...)
	switch {
	case n.ConfigErr != nil:
		checks = append(checks, problem("configuration", "correct the file; containers boot until then", "%v", n.ConfigErr))
	case n.ConfigFile != "":
		checks = append(checks, ok("configuration", "%s", n.ConfigFile))
	}
	return checks
}

func (n Node) host() []Check {
	var checks []Check
	if n.FactsErr != nil {
		checks = append(checks, problem("host", "mount /proc and /sys as usual", "%v", n.FactsErr))
	} else {
		checks = append(checks,
			ok("kernel", "%s, %s", n.Facts.Kernel, n.Facts.Arch),
			ok("cgroups", "%s", n.cgroups()))
	}
	if n.RunTmpfs {
		return append(checks, ok("/run", "a tmpfs, on which CRIU keeps what it learned of the kernel"))
	}
	return append(checks, warning("/run", "mount a tmpfs on /run, as distributions do",
		"not a tmpfs: CRIU does not keep /run/criu.kdat and probes the kernel anew in each call, about 30 ms"))
}

// cgroups says of which version they are.
func (n Node) cgroups() string {
	if n.Facts.Cgroup == "v1" && n.Host.Hybrid {
		return "v1 (hybrid: a v2 hierarchy without controllers beside it)"
	}
	return n.Facts.Cgroup
}

func (n Node) shim() Check {
	if n.Shim == "" {
		return warning("shim", "install "+shimProgram+" into a directory of containerd's PATH",
			"%s is not in this PATH; containerd must find it in its own", shimProgram)
	}
	return ok("shim", "%s", n.Shim)
}

func (n Node) criu() []Check {
	switch {
	case errors.Is(n.CRIUErr, criu.ErrNotInstalled):
		return []Check{problem("criu", fmt.Sprintf("install criu >= %s into a directory of containerd's PATH", checkpoint.FormatCRIU(criu.MinVersion)),
			"not found in PATH %s", n.Path)}
	case n.CRIUErr != nil:
		return []Check{problem("criu", "reinstall criu: it cannot be run", "%v", n.CRIUErr)}
	}
	return []Check{n.criuVersion(), n.criuCheck()}
}

func (n Node) criuVersion() Check {
	v := checkpoint.FormatCRIU(n.Facts.CRIU)
	switch {
	case n.FactsErr != nil:
		return ok("criu", "%s", n.CRIU)
	case n.Facts.CRIU < criu.MinVersion:
		return problem("criu", fmt.Sprintf("install criu >= %s", checkpoint.FormatCRIU(criu.MinVersion)), "%s at %s is too old", v, n.CRIU)
	case n.Facts.CRIU < inetCRIU && since616(n.Facts.Kernel):
		return problem("criu", fmt.Sprintf("install criu >= %s", checkpoint.FormatCRIU(inetCRIU)),
			"%s at %s cannot capture a program with an internet socket, not even a listening one, on kernel %s", v, n.CRIU, n.Facts.Kernel)
	}
	return ok("criu", "%s at %s; containerd's PATH must lead to the same", v, n.CRIU)
}

func (n Node) criuCheck() Check {
	switch {
	case n.CheckErr != nil && n.Check == "":
		return problem("criu check", "run `criu check` as root in the same environment", "%v", n.CheckErr)
	case n.CheckErr != nil:
		return problem("criu check", "the kernel lacks what CRIU needs, or is newer than CRIU knows: update criu; in a container, give it the privileges", "%v: %s", n.CheckErr, n.Check)
	case n.Check == "":
		return ok("criu check", "passed")
	}
	return ok("criu check", "%s", n.Check)
}

// since616 says that a kernel, by its release, is 6.16 or newer. One that cannot be
// read is taken to be older: there is no reason to complain.
func since616(release string) bool {
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return false
	}
	return major > 6 || major == 6 && minor >= 16
}

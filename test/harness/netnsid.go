package harness

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// NetNS identifies a network namespace. The kernel gives the inode number of one that is gone
// to the next, the cookie (SO_NETNS_COOKIE, Linux 5.14) to none.
type NetNS struct{ inode, cookie uint64 }

// NetNSOf identifies the network namespace of a process.
func NetNSOf(pid int) (NetNS, error) { return netNSAt(fmt.Sprintf("/proc/%d/ns/net", pid)) }

func netNSAt(path string) (NetNS, error) {
	var n NetNS
	err := inNetNS(path, func() error {
		var st unix.Stat_t
		if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
			return err
		}
		n.inode = st.Ino
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		n.cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
		return err
	})
	if err != nil {
		return n, fmt.Errorf("identify network namespace %s: %w", path, err)
	}
	return n, nil
}

// Holders names the processes, threads and descriptors that keep the namespace alive.
func (n NetNS) Holders() ([]string, error) {
	target := fmt.Sprintf("net:[%d]", n.inode)
	var holders []string
	for _, pattern := range []string{"/proc/[0-9]*/task/*/ns/net", "/proc/[0-9]*/fd/*"} {
		links, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		for _, link := range links {
			if to, err := os.Readlink(link); err != nil || to != target {
				continue
			}
			// One that cannot be identified any more has let go meanwhile.
			if held, err := netNSAt(link); err == nil && held == n {
				holders = append(holders, link)
			}
		}
	}
	return holders, nil
}

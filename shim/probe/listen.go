package probe

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

var errNotListening = errors.New("none of its processes listens on a TCP port")

// listening says whether a process of the program holds a listening TCP socket. In
// a network namespace that others use, too (the host's, a pod's), theirs do not count.
func listening(t Target) error {
	sockets, err := listeningSockets(t.PID())
	if err != nil {
		return err
	}
	if len(sockets) == 0 {
		return errNotListening
	}
	pids, err := t.PIDs()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		dir := "/proc/" + strconv.Itoa(pid) + "/fd"
		fds, err := os.ReadDir(dir)
		if err != nil {
			continue // it has ended
		}
		for _, fd := range fds {
			link, err := os.Readlink(dir + "/" + fd.Name())
			if inode, ok := strings.CutPrefix(link, "socket:["); err == nil && ok && sockets[strings.TrimSuffix(inode, "]")] {
				return nil
			}
		}
	}
	return errNotListening
}

// listeningSockets returns the inodes of the sockets that listen in the network
// namespace of pid.
func listeningSockets(pid int) (map[string]bool, error) {
	sockets := map[string]bool{}
	for _, table := range []string{"tcp", "tcp6"} {
		f, err := os.Open(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		if errors.Is(err, os.ErrNotExist) && table == "tcp6" {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, err
		}
		err = readListening(f, sockets)
		f.Close()
		if err != nil {
			return nil, err
		}
	}
	return sockets, nil
}

// readListening reads a table as proc(5) describes it: sl, local and remote address,
// state, queues, timers, retransmissions, uid, timeout, inode.
func readListening(r io.Reader, sockets map[string]bool) error {
	const (
		fieldState, fieldInode = 3, 9
		stateListen            = "0A"
	)
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) > fieldInode && f[fieldState] == stateListen {
			sockets[f[fieldInode]] = true
		}
	}
	return lines.Err()
}

// exists looks for path in the root of a process. Symbolic links lead where they lead
// for that process, and never out of its root.
func exists(pid int, path string) error {
	root, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: "the container's root", Err: err}
	}
	defer unix.Close(root)
	fd, err := unix.Openat2(root, path, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return &os.PathError{Op: "find", Path: path, Err: err}
	}
	return unix.Close(fd)
}

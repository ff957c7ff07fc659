package stdio

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// end says which end of a pipe stays with this process.
type end int

const (
	endNone end = iota
	endRead
	endWrite
)

// newPipe makes a pipe that belongs to uid and gid, so that the process can
// open it again through /proc/self/fd.
//
// The end that stays here is non-blocking, which lets Close interrupt its
// reads and writes. The other is blocking: O_NONBLOCK belongs to the open file,
// so the other program would see it, and few programs expect EAGAIN.
func newPipe(ours end, uid, gid int) (r, w *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, fmt.Errorf("create a pipe: %w", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fds[0])
			unix.Close(fds[1])
		}
	}()
	if uid != os.Geteuid() || gid != os.Getegid() {
		if err := unix.Fchown(fds[0], uid, gid); err != nil {
			return nil, nil, fmt.Errorf("give a pipe to uid %d, gid %d: %w", uid, gid, err)
		}
	}
	if ours != endNone {
		if err := unix.SetNonblock(fds[ours-endRead], true); err != nil {
			return nil, nil, fmt.Errorf("make a pipe non-blocking: %w", err)
		}
	}
	return os.NewFile(uintptr(fds[0]), "pipe"), os.NewFile(uintptr(fds[1]), "pipe"), nil
}

// newSocketPair returns the two ends of a connected socket: ours, non-blocking,
// and the one for another process, blocking.
func newSocketPair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("create a console socket: %w", err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return nil, nil, fmt.Errorf("make a console socket non-blocking: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "console socket"), os.NewFile(uintptr(fds[1]), "console socket"), nil
}

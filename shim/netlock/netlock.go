// Package netlock silences a network namespace while the TCP connections of a
// task are saved or restored, and keeps the task's end from ending them.
//
// The kernel goes on answering for connections of a frozen task: data that it
// acknowledges after they were saved would be lost, and to a packet that comes
// before they are restored it answers that there is no such connection. CRIU's
// own locks are firewall rules, which stay behind when it or its caller is
// killed. The lock here is an nftables table that belongs to a socket: the
// kernel removes it with the socket, however its owner ends (Linux >= 5.12,
// NFT_TABLE_F_OWNER).
//
// It has no locks of its own: a Lock belongs to one caller.
package netlock

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/shim/netns"
)

// Lock is a silenced network namespace.
type Lock struct{ socket int }

// tableName is what `nft list tables` shows while the lock is held, followed by our pid.
const tableName = "snap-"

// Take silences the network namespace that the file at path stands for: nothing
// comes in and nothing goes out, loopback included, until Release or the end of
// this process.
func Take(path string) (*Lock, error) {
	l := &Lock{socket: -1}
	if err := netns.Do(path, l.take); err != nil {
		return nil, fmt.Errorf("lock the network: %w", errors.Join(err, l.Release()))
	}
	return l, nil
}

// Release lets packets pass again. It may be called twice, and on nil.
func (l *Lock) Release() error {
	if l == nil || l.socket < 0 {
		return nil
	}
	err := unix.Close(l.socket)
	l.socket = -1
	return err
}

// take makes the table in the calling thread's network namespace.
func (l *Lock) take() (err error) {
	l.socket, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("nfnetlink: %w", err)
	}
	if err := unix.Bind(l.socket, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("nfnetlink: %w", err)
	}
	if err := unix.SetsockoptTimeval(l.socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: answerSeconds}); err != nil {
		return fmt.Errorf("nfnetlink: %w", err)
	}
	if err := unix.Sendto(l.socket, batch(fmt.Sprintf("%s%d", tableName, os.Getpid())), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("nfnetlink: %w", err)
	}
	return l.acknowledged()
}

// answerSeconds bounds the wait for the kernel's answers, which come at once.
const answerSeconds = 5

// acknowledged reads the answer to each message of the batch.
func (l *Lock) acknowledged() error {
	const header = 16
	b := make([]byte, 8192)
	for answers := 0; answers < messages; {
		n, _, err := unix.Recvfrom(l.socket, b, 0)
		if err != nil {
			return fmt.Errorf("nfnetlink: %w", err)
		}
		for rest := b[:n]; len(rest) >= header+4; answers++ {
			size := int(binary.NativeEndian.Uint32(rest))
			if size < header+4 || size > len(rest) || binary.NativeEndian.Uint16(rest[4:]) != unix.NLMSG_ERROR {
				return errors.New("nfnetlink: an answer that is none")
			}
			if errno := -int32(binary.NativeEndian.Uint32(rest[header:])); errno != 0 {
				return fmt.Errorf("nftables: %w", unix.Errno(errno))
			}
			rest = rest[min(len(rest), align(size)):]
		}
	}
	return nil
}

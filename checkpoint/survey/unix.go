package survey

import (
	"encoding/binary"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Of linux/unix_diag.h and sock_diag.h.
const (
	sockDiagByFamily = 20
	udiagShowPeer    = 0x4
	unixDiagPeer     = 2
	// diagMessage is the size of struct unix_diag_msg.
	diagMessage = 16
)

// unixPeers returns, by the inode of each Unix socket in a process's network namespace,
// that of the socket that it is connected to. It is empty if the kernel does not tell.
func unixPeers(pid int) map[uint64]uint64 {
	found := make(chan map[uint64]uint64)
	go func() {
		// A thread that has been in another namespace is not used for anything else: it
		// ends with this goroutine.
		runtime.LockOSThread()
		peers := map[uint64]uint64{}
		if ns, err := os.Open(path(pid, "ns/net")); err == nil {
			if unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET) == nil {
				readPeers(peers)
			}
			ns.Close()
		}
		found <- peers
	}()
	return <-found
}

// readPeers asks for all Unix sockets of the thread's network namespace.
func readPeers(peers map[uint64]uint64) {
	s, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return
	}
	defer unix.Close(s)
	_ = unix.SetsockoptTimeval(s, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 2}) // it answers at once
	// struct nlmsghdr and struct unix_diag_req.
	req := make([]byte, unix.SizeofNlMsghdr+24)
	order := binary.NativeEndian
	order.PutUint32(req[0:], uint32(len(req)))
	order.PutUint16(req[4:], sockDiagByFamily)
	order.PutUint16(req[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	body := req[unix.SizeofNlMsghdr:]
	body[0] = unix.AF_UNIX
	order.PutUint32(body[4:], 0xffffffff) // in any state
	order.PutUint32(body[12:], udiagShowPeer)
	if unix.Sendto(s, req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}) != nil {
		return
	}
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(s, buf, 0)
		if err != nil || n == 0 || !parsePeers(buf[:n], peers) {
			return
		}
	}
}

// parsePeers reads netlink messages; more says that others follow.
func parsePeers(b []byte, peers map[uint64]uint64) (more bool) {
	order := binary.NativeEndian
	for len(b) >= unix.SizeofNlMsghdr {
		size, kind := int(order.Uint32(b)), order.Uint16(b[4:])
		if kind == unix.NLMSG_DONE || kind == unix.NLMSG_ERROR || size < unix.SizeofNlMsghdr || size > len(b) {
			return false
		}
		if m := b[unix.SizeofNlMsghdr:size]; len(m) >= diagMessage {
			inode := uint64(order.Uint32(m[4:]))
			for a := m[diagMessage:]; len(a) >= unix.SizeofRtAttr; {
				length := int(order.Uint16(a))
				if length < unix.SizeofRtAttr || length > len(a) {
					break
				}
				if order.Uint16(a[2:]) == unixDiagPeer && length >= unix.SizeofRtAttr+4 {
					peers[inode] = uint64(order.Uint32(a[unix.SizeofRtAttr:]))
				}
				a = a[min(len(a), (length+3)&^3):]
			}
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return true
}

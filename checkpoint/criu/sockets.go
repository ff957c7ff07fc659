package criu

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protowire"
)

// Socket is an internet socket of the images, with what is needed to make it anew
// (images/sk-inet.proto, images/sk-opts.proto).
type Socket struct {
	// ID is its number among the images' files.
	ID uint32
	// Family, Type and Protocol are those of socket(2).
	Family, Type, Protocol int
	// Flags are those of open(2) that fcntl(2) can set.
	Flags int
	// Listening says that connections can be made to it; Backlog is then that of listen(2).
	Listening bool
	Backlog   int
	// Local is what it is bound to; the port is 0 if it is not.
	Local netip.AddrPort
	// Remote is what it is connected to; the port is 0 if it is not.
	Remote netip.AddrPort
	// Device is the interface that it is bound to, Scope that of a link-local
	// address; empty for none.
	Device, Scope string
	// ReuseAddress, ReusePort, V6Only and FreeBind are the options that bind(2) asks for.
	ReuseAddress, ReusePort, V6Only, FreeBind bool
	// Options are the others.
	Options []SocketOption
	// Peculiar says that it has what only CRIU gives back: a filter, or a process
	// that is signalled.
	Peculiar bool
}

// SocketOption is an option as setsockopt(2) takes it.
type SocketOption struct {
	Level, Name int
	// Value is that of an option that takes an int.
	Value int
	// Time and Linger are those of options that take one of them; nil for others.
	Time   *unix.Timeval
	Linger *unix.Linger
}

// Numbers in a file_entry and a fdinfo_entry (images/fdinfo.proto) that concern sockets.
const (
	fileID, fileInet = 2, 4
	fdType           = 3
	typeInet         = 4
)

// stateListen is the kernel's TCP_LISTEN.
const stateListen = 10

// Sockets lists the internet sockets of the images in dir.
func Sockets(dir string) ([]Socket, error) {
	const name = "files.img"
	recs, err := records(dir, name)
	if err != nil {
		return nil, err
	}
	var all []Socket
	for _, rec := range recs {
		kind, _, entry, err := parseFile(rec)
		if err == nil && kind == typeInet {
			var s Socket
			s, err = parseSocket(entry)
			all = append(all, s)
		}
		if err != nil {
			return nil, unusable(name, err)
		}
	}
	return all, nil
}

// parseFile reads a file_entry (images/fdinfo.proto); entry is that of an internet socket.
func parseFile(rec []byte) (kind uint64, id uint32, entry []byte, err error) {
	fs, err := fields(rec)
	return number(fs, fileType), uint32(number(fs, fileID)), text(fs, fileInet), err
}

func parseSocket(entry []byte) (s Socket, err error) {
	fs, err := fields(entry)
	if err != nil {
		return s, err
	}
	var local, remote []uint32
	var localPort, remotePort uint16
	for _, f := range fs {
		switch f.num {
		case 1:
			s.ID = uint32(f.value)
		case 3:
			s.Family = int(f.value)
		case 4:
			s.Type = int(f.value)
		case 5:
			s.Protocol = int(f.value)
		case 6:
			s.Listening = f.value == stateListen
		case 7:
			localPort = uint16(f.value)
		case 8:
			remotePort = uint16(f.value)
		case 9:
			s.Flags = int(f.value)
		case 10:
			s.Backlog = int(f.value)
		case 11:
			local, err = appendWords(local, f)
		case 12:
			remote, err = appendWords(remote, f)
		case 13:
			err = s.owner(f.bytes)
		case 14:
			err = s.options(f.bytes)
		case 15:
			s.V6Only = f.value != 0
		case 16:
			err = s.ipOptions(f.bytes)
		case 17:
			s.Scope = string(f.bytes)
		case 20:
			err = s.tcpOptions(f.bytes)
		}
		if err != nil {
			return s, err
		}
	}
	if s.Local, err = address(s.Family, local, localPort); err != nil {
		return s, err
	}
	s.Remote, err = address(s.Family, remote, remotePort)
	return s, err
}

// appendWords appends what a repeated uint32 holds, packed or not.
func appendWords(words []uint32, f field) ([]uint32, error) {
	if f.bytes == nil {
		return append(words, uint32(f.value)), nil
	}
	for b := f.bytes; len(b) > 0; {
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		words, b = append(words, uint32(v)), b[n:]
	}
	return words, nil
}

// address is that of the words, each of which holds four bytes in memory order.
func address(family int, words []uint32, port uint16) (netip.AddrPort, error) {
	want := 4
	if family == unix.AF_INET6 {
		want = 16
	}
	var b []byte
	for _, w := range words {
		b = binary.NativeEndian.AppendUint32(b, w)
	}
	if len(b) < want {
		return netip.AddrPort{}, errors.New("an internet socket without an address")
	}
	a, _ := netip.AddrFromSlice(b[:want])
	return netip.AddrPortFrom(a, port), nil
}

// owner reads a fown_entry: who is signalled when something arrives.
func (s *Socket) owner(msg []byte) error {
	fs, err := fields(msg)
	for _, f := range fs {
		if (f.num == 3 || f.num == 5) && f.value != 0 {
			s.Peculiar = true
		}
	}
	return err
}

// plainOptions are the numbers of a sk_opts_entry whose values setsockopt(2) takes as they are.
var plainOptions = map[protowire.Number]SocketOption{
	8:  {Level: unix.SOL_SOCKET, Name: unix.SO_PRIORITY},
	9:  {Level: unix.SOL_SOCKET, Name: unix.SO_RCVLOWAT},
	10: {Level: unix.SOL_SOCKET, Name: unix.SO_MARK},
	11: {Level: unix.SOL_SOCKET, Name: unix.SO_PASSCRED},
	12: {Level: unix.SOL_SOCKET, Name: unix.SO_PASSSEC},
	13: {Level: unix.SOL_SOCKET, Name: unix.SO_DONTROUTE},
	14: {Level: unix.SOL_SOCKET, Name: unix.SO_NO_CHECK},
	18: {Level: unix.SOL_SOCKET, Name: unix.SO_BROADCAST},
	19: {Level: unix.SOL_SOCKET, Name: unix.SO_KEEPALIVE},
	20: {Level: unix.SOL_TCP, Name: unix.TCP_KEEPCNT},
	21: {Level: unix.SOL_TCP, Name: unix.TCP_KEEPIDLE},
	22: {Level: unix.SOL_TCP, Name: unix.TCP_KEEPINTVL},
	23: {Level: unix.SOL_SOCKET, Name: unix.SO_OOBINLINE},
	25: {Level: unix.SOL_SOCKET, Name: unix.SO_BUF_LOCK},
}

// options reads a sk_opts_entry. Options that have their zero value are those that a new
// socket has, but for SO_BUF_LOCK, which says whether the kernel may change the buffers.
func (s *Socket) options(msg []byte) error {
	fs, err := fields(msg)
	var send, receive unix.Timeval
	for _, f := range fs {
		switch f.num {
		case 1, 2:
			name := unix.SO_SNDBUFFORCE
			if f.num == 2 {
				name = unix.SO_RCVBUFFORCE
			}
			// The kernel doubles what it is given (socket(7)).
			s.Options = append(s.Options, SocketOption{Level: unix.SOL_SOCKET, Name: name, Value: int(f.value / 2)})
		case 3:
			send.Sec = int64(f.value)
		case 4:
			send.Usec = int64(f.value)
		case 5:
			receive.Sec = int64(f.value)
		case 6:
			receive.Usec = int64(f.value)
		case 7:
			s.ReuseAddress = f.value != 0
		case 15:
			s.Device = string(f.bytes)
		case 16:
			s.Peculiar = true
		case 17:
			s.ReusePort = f.value != 0
		case 24:
			s.Options = append(s.Options, SocketOption{Level: unix.SOL_SOCKET, Name: unix.SO_LINGER, Linger: &unix.Linger{Onoff: 1, Linger: int32(f.value)}})
		default:
			if o, ok := plainOptions[f.num]; ok && (f.value != 0 || o.Name == unix.SO_BUF_LOCK) {
				o.Value = int(f.value)
				s.Options = append(s.Options, o)
			}
		}
	}
	for name, t := range map[int]unix.Timeval{unix.SO_SNDTIMEO: send, unix.SO_RCVTIMEO: receive} {
		if t != (unix.Timeval{}) {
			s.Options = append(s.Options, SocketOption{Level: unix.SOL_SOCKET, Name: name, Time: &t})
		}
	}
	return err
}

// ipOptions reads an ip_opts_entry. IPv6 sockets take those of IPv4, too, but for the
// one that tells where a packet came to.
func (s *Socket) ipOptions(msg []byte) error {
	fs, err := fields(msg)
	for _, f := range fs {
		o := SocketOption{Level: unix.SOL_IP, Value: int(f.value)}
		switch {
		case f.num == 1:
			s.FreeBind = f.value != 0
			continue
		case f.num == 5 && s.Family == unix.AF_INET6:
			o.Level, o.Name = unix.SOL_IPV6, unix.IPV6_RECVPKTINFO
		case f.num == 5:
			o.Name = unix.IP_PKTINFO
		case f.num == 6:
			o.Name = unix.IP_TOS
		case f.num == 7:
			o.Name = unix.IP_TTL
		}
		if o.Name != 0 && f.value != 0 {
			s.Options = append(s.Options, o)
		}
	}
	return err
}

// tcpOptions reads a tcp_opts_entry (images/tcp-stream.proto).
func (s *Socket) tcpOptions(msg []byte) error {
	names := map[protowire.Number]int{1: unix.TCP_CORK, 2: unix.TCP_NODELAY, 3: unix.TCP_KEEPCNT, 4: unix.TCP_KEEPIDLE, 5: unix.TCP_KEEPINTVL}
	fs, err := fields(msg)
	for _, f := range fs {
		if name := names[f.num]; name != 0 && f.value != 0 {
			s.Options = append(s.Options, SocketOption{Level: unix.SOL_TCP, Name: name, Value: int(f.value)})
		}
	}
	return err
}

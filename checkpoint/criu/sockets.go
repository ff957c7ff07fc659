package criu

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/containerd-snap/snap/checkpoint/criu/image"
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
	files, err := messages(dir, name)
	if err != nil {
		return nil, err
	}
	var all []Socket
	for _, file := range files {
		if file.Number(fileType) != typeInet {
			continue
		}
		s, err := parseSocket(file.Text(fileInet))
		if err != nil {
			return nil, image.Unusable(name, err)
		}
		all = append(all, s)
	}
	return all, nil
}

func parseSocket(entry []byte) (s Socket, err error) {
	fields, err := image.Parse(entry)
	if err != nil {
		return s, err
	}
	var local, remote []uint32
	var localPort, remotePort uint16
	for _, f := range fields {
		switch f.Num {
		case 1:
			s.ID = uint32(f.Value)
		case 3:
			s.Family = int(f.Value)
		case 4:
			s.Type = int(f.Value)
		case 5:
			s.Protocol = int(f.Value)
		case 6:
			s.Listening = f.Value == stateListen
		case 7:
			localPort = uint16(f.Value)
		case 8:
			remotePort = uint16(f.Value)
		case 9:
			s.Flags = int(f.Value)
		case 10:
			s.Backlog = int(f.Value)
		case 11:
			local, err = appendWords(local, f)
		case 12:
			remote, err = appendWords(remote, f)
		case 13:
			err = s.owner(f.Bytes)
		case 14:
			err = s.options(f.Bytes)
		case 15:
			s.V6Only = f.Value != 0
		case 16:
			err = s.ipOptions(f.Bytes)
		case 17:
			s.Scope = string(f.Bytes)
		case 20:
			err = s.tcpOptions(f.Bytes)
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
func appendWords(words []uint32, f image.Field) ([]uint32, error) {
	if f.Bytes == nil {
		return append(words, uint32(f.Value)), nil
	}
	for b := f.Bytes; len(b) > 0; {
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
	fields, err := image.Parse(msg)
	for _, f := range fields {
		if (f.Num == 3 || f.Num == 5) && f.Value != 0 {
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
	fields, err := image.Parse(msg)
	var send, receive unix.Timeval
	for _, f := range fields {
		switch f.Num {
		case 1, 2:
			name := unix.SO_SNDBUFFORCE
			if f.Num == 2 {
				name = unix.SO_RCVBUFFORCE
			}
			// The kernel doubles what it is given (socket(7)).
			s.Options = append(s.Options, SocketOption{Level: unix.SOL_SOCKET, Name: name, Value: int(f.Value / 2)})
		case 3:
			send.Sec = int64(f.Value)
		case 4:
			send.Usec = int64(f.Value)
		case 5:
			receive.Sec = int64(f.Value)
		case 6:
			receive.Usec = int64(f.Value)
		case 7:
			s.ReuseAddress = f.Value != 0
		case 15:
			s.Device = string(f.Bytes)
		case 16:
			s.Peculiar = true
		case 17:
			s.ReusePort = f.Value != 0
		case 24:
			s.Options = append(s.Options, SocketOption{Level: unix.SOL_SOCKET, Name: unix.SO_LINGER, Linger: &unix.Linger{Onoff: 1, Linger: int32(f.Value)}})
		default:
			if o, ok := plainOptions[f.Num]; ok && (f.Value != 0 || o.Name == unix.SO_BUF_LOCK) {
				o.Value = int(f.Value)
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
	fields, err := image.Parse(msg)
	for _, f := range fields {
		o := SocketOption{Level: unix.SOL_IP, Value: int(f.Value)}
		switch {
		case f.Num == 1:
			s.FreeBind = f.Value != 0
			continue
		case f.Num == 5 && s.Family == unix.AF_INET6:
			o.Level, o.Name = unix.SOL_IPV6, unix.IPV6_RECVPKTINFO
		case f.Num == 5:
			o.Name = unix.IP_PKTINFO
		case f.Num == 6:
			o.Name = unix.IP_TOS
		case f.Num == 7:
			o.Name = unix.IP_TTL
		}
		if o.Name != 0 && f.Value != 0 {
			s.Options = append(s.Options, o)
		}
	}
	return err
}

// tcpOptions reads a tcp_opts_entry (images/tcp-stream.proto).
func (s *Socket) tcpOptions(msg []byte) error {
	names := map[protowire.Number]int{1: unix.TCP_CORK, 2: unix.TCP_NODELAY, 3: unix.TCP_KEEPCNT, 4: unix.TCP_KEEPIDLE, 5: unix.TCP_KEEPINTVL}
	fields, err := image.Parse(msg)
	for _, f := range fields {
		if name := names[f.Num]; name != 0 && f.Value != 0 {
			s.Options = append(s.Options, SocketOption{Level: unix.SOL_TCP, Name: name, Value: int(f.Value)})
		}
	}
	return err
}

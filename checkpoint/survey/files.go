package survey

import (
	"encoding/hex"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// files gathers the open descriptors. Their links are followed only by calls that do not
// open what is behind them.
func (p *Process) files(peers map[uint64]uint64) {
	entries, err := os.ReadDir(path(p.PID, "fd"))
	if err != nil {
		return
	}
	connections := tcpConnections(p.PID)
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if f, ok := lookAtFile(p.PID, fd); ok {
			if f.Socket != nil {
				c, connected := connections[f.Socket.Inode]
				f.Socket.Connected, f.Socket.Local, f.Socket.Remote = connected, c.local, c.remote
				peer, paired := peers[f.Socket.Inode]
				f.Socket.Peer, f.Socket.Pending = peer, paired && peer == 0
			}
			p.Files = append(p.Files, f)
		}
	}
	slices.SortFunc(p.Files, func(a, b File) int { return a.FD - b.FD })
}

func lookAtFile(pid, fd int) (File, bool) {
	link := path(pid, "fd/"+strconv.Itoa(fd))
	f := File{FD: fd, TTY: -1}
	var err error
	if f.Target, err = os.Readlink(link); err != nil {
		return f, false
	}
	var st unix.Stat_t
	if err := unix.Stat(link, &st); err != nil {
		return f, false
	}
	f.Type = fileType(st.Mode)
	f.Major, f.Minor = unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev)) //nolint:unconvert // its type depends on the architecture
	f.Links, f.Blocks = uint64(st.Nlink), st.Blocks*512                         //nolint:unconvert // as above
	if f.Type&fs.ModeSocket != 0 {
		f.Socket = &Socket{Inode: st.Ino, Protocol: protocol(link)}
	}
	if info, err := os.ReadFile(path(pid, "fdinfo/"+strconv.Itoa(fd))); err == nil {
		f.info(string(info))
	}
	return f, true
}

func fileType(mode uint32) fs.FileMode {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return fs.ModeDir
	case unix.S_IFCHR:
		return fs.ModeDevice | fs.ModeCharDevice
	case unix.S_IFBLK:
		return fs.ModeDevice
	case unix.S_IFIFO:
		return fs.ModeNamedPipe
	case unix.S_IFSOCK:
		return fs.ModeSocket
	case unix.S_IFLNK:
		return fs.ModeSymlink
	case unix.S_IFREG:
		return 0
	default:
		return fs.ModeIrregular // as anon_inode files are
	}
}

// protocol asks the kernel for the name of a socket's protocol, as lsof does; empty if
// it does not say.
func protocol(link string) string {
	buf := make([]byte, 64)
	n, err := unix.Getxattr(link, "system.sockprotoname", buf)
	if err != nil {
		return ""
	}
	return strings.TrimRight(string(buf[:n]), "\x00")
}

// info reads what /proc/PID/fdinfo/FD says.
func (f *File) info(text string) {
	f.MountID, _ = strconv.Atoi(field(text, "mnt_id")) // 0 for what cannot be read
	if n, err := strconv.Atoi(field(text, "tty-index")); err == nil {
		f.TTY = n
	}
	f.Counts = field(text, "eventfd-semaphore") == "1"
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "inotify ") {
			continue
		}
		for word := range strings.FieldsSeq(line) {
			if rest, ok := strings.CutPrefix(word, "sdev:"); ok {
				if d, err := strconv.ParseUint(rest, 16, 32); err == nil {
					// The kernel's own form: 12 bits and 20.
					f.Watches = append(f.Watches, strconv.FormatUint(d>>20, 10)+":"+strconv.FormatUint(d&0xfffff, 10))
				}
			}
		}
	}
}

// connection is an established TCP connection.
type connection struct{ local, remote string }

// tcpConnections lists those of a process's network namespace, by inode.
func tcpConnections(pid int) map[uint64]connection {
	all := map[uint64]connection{}
	for _, table := range []string{"tcp", "tcp6"} {
		if raw, err := os.ReadFile(filepath.Join(path(pid, "net"), table)); err == nil {
			parseTCP(string(raw), all)
		}
	}
	return all
}

// tcpStates are those of a connection, in hexadecimal; 07 is closed and 0A listens.
var tcpStates = map[string]bool{"01": true, "02": true, "03": true, "04": true, "05": true, "06": true, "08": true, "09": true, "0B": true}

// parseTCP reads lines "N: LOCAL REMOTE STATE … INODE …".
func parseTCP(table string, into map[uint64]connection) {
	for line := range strings.Lines(table) {
		words := strings.Fields(line)
		if len(words) < 10 || !tcpStates[words[3]] {
			continue
		}
		inode, err := strconv.ParseUint(words[9], 10, 64)
		if err != nil || inode == 0 {
			continue
		}
		into[inode] = connection{address(words[1]), address(words[2])}
	}
}

// address reads "0100007F:1F90": 32-bit words in the machine's order, which is taken to
// be the little one, and a port.
func address(s string) string {
	host, port, ok := strings.Cut(s, ":")
	raw, err := hex.DecodeString(host)
	n, perr := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil || perr != nil || len(raw)%4 != 0 {
		return s
	}
	for i := 0; i < len(raw); i += 4 {
		slices.Reverse(raw[i : i+4])
	}
	a, ok := netip.AddrFromSlice(raw)
	if !ok {
		return s
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(n)).String()
}

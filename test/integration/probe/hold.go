package main

import (
	"fmt"
	"net"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// holds are resources that the probe can hold until it ends, by name.
var holds = map[string]func() error{
	"io_uring": func() error {
		params := make([]byte, 120) // struct io_uring_params
		return descriptor(unix.Syscall(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&params[0])), 0))
	},
	"perf": func() error {
		attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_DUMMY, Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{}))}
		_, err := unix.PerfEventOpen(&attr, 0, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
		return err
	},
	"bpf-prog": func() error {
		// r0 = 0; exit: a socket filter that lets nothing pass.
		program := []uint64{0x00000000000000b7, 0x0000000000000095}
		license := []byte("GPL\x00")
		attr := struct {
			kind, count          uint32
			instructions, licens uint64
			rest                 [104]byte
		}{1, 2, uint64(uintptr(unsafe.Pointer(&program[0]))), uint64(uintptr(unsafe.Pointer(&license[0]))), [104]byte{}}
		return descriptor(unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr)))
	},
	"userfaultfd": func() error {
		return descriptor(unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|1 /* UFFD_USER_MODE_ONLY */, 0, 0))
	},
	"vsock":       func() error { return socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0) },
	"xdp":         func() error { return socket(unix.AF_XDP, unix.SOCK_RAW, 0) },
	"packet":      func() error { return socket(unix.AF_PACKET, unix.SOCK_RAW, 0) },
	"raw":         func() error { return socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW) },
	"netlink":     func() error { return socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE) },
	"fuse":        func() error { return open("/dev/fuse", unix.O_RDWR) },
	"urandom":     func() error { return open("/dev/urandom", unix.O_RDONLY) },
	"watch-file":  func() error { return watch("/counter") },
	"watch-tmpfs": func() error { return watch("/dev/shm") },
	"lock": func() error {
		f, err := os.Create("/locked")
		if err != nil {
			return err
		}
		keep = append(keep, f)
		return unix.Flock(int(f.Fd()), unix.LOCK_EX)
	},
	"deleted-small": func() error { return deleted(1 << 20) },
	"deleted-large": func() error { return deleted(257 << 20) },
	"deleted-image": func() error {
		if err := open("/etc/group", unix.O_RDONLY); err != nil {
			return err
		}
		return os.Remove("/etc/group")
	},
	"memfd": func() error { _, err := unix.MemfdCreate("memfd", 0); return err },
	"epoll": func() error { _, err := unix.EpollCreate1(0); return err },
	"ramfs": func() error { return unix.Mount("ramfs", "/mnt", "ramfs", 0, "") },
	"tmpfs": func() error { return unix.Mount("tmpfs", "/mnt", "tmpfs", 0, "") },
	"outside": func() error {
		c, err := net.Dial("unix", "/outside/socket")
		if err == nil {
			keep = append(keep, c)
		}
		return err
	},
	"socketpair": func() error { _, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0); return err },
	"connection": func() error {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		c, err := net.Dial("tcp", l.Addr().String())
		keep = append(keep, l, c)
		return err
	},
}

// keep holds what would otherwise be collected, and closed.
var keep []any

// hold takes what a comma-separated list names.
func hold(list string) error {
	for name := range strings.SplitSeq(list, ",") {
		if name == "" {
			continue
		}
		take, ok := holds[name]
		if !ok {
			return fmt.Errorf("hold %s: unknown", name)
		}
		if err := take(); err != nil {
			return fmt.Errorf("hold %s: %w", name, err)
		}
	}
	return nil
}

// descriptor is the error of a system call that returns one.
func descriptor(_, _ uintptr, errno unix.Errno) error {
	if errno != 0 {
		return errno
	}
	return nil
}

func socket(family, kind, protocol int) error {
	_, err := unix.Socket(family, kind, protocol)
	return err
}

func open(path string, flags int) error {
	_, err := unix.Open(path, flags, 0)
	return err
}

func watch(path string) error {
	fd, err := unix.InotifyInit1(0)
	if err == nil {
		_, err = unix.InotifyAddWatch(fd, path, unix.IN_MODIFY)
	}
	return err
}

// deleted holds a file that has no name any more.
func deleted(size int64) error {
	f, err := os.Create("/deleted")
	if err != nil {
		return err
	}
	keep = append(keep, f)
	if err := unix.Fallocate(int(f.Fd()), 0, 0, size); err != nil {
		return err
	}
	return os.Remove("/deleted")
}

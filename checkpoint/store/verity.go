package store

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// enableVerity makes f, which must be open for reading only and nowhere for writing,
// immutable, and has the kernel check its pages as they are read. That is a gain
// where the file system offers it, and no loss where it does not: the store checks
// the digests itself.
func enableVerity(f *os.File) error {
	arg := unix.FsverityEnableArg{
		Version:        1,
		Hash_algorithm: unix.FS_VERITY_HASH_ALG_SHA256,
		Block_size:     4096,
	}
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.FS_IOC_ENABLE_VERITY, uintptr(unsafe.Pointer(&arg)))
		switch {
		case errno == 0, errors.Is(errno, unix.EEXIST):
			return nil
		case errors.Is(errno, unix.ENOTTY), errors.Is(errno, unix.EOPNOTSUPP), errors.Is(errno, unix.EINVAL):
			return nil // not built in, not enabled, or not with this block size
		case errors.Is(errno, unix.EINTR):
		default:
			return fmt.Errorf("enable fs-verity on %s: %w", f.Name(), errno)
		}
	}
}

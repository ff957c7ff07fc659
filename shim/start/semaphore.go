package start

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// noSemaphores refuses a capture of processes that use an eventfd as a semaphore
// (EFD_SEMAPHORE of eventfd(2)). CRIU saves it without that, and a read would
// take all that it holds instead of one: nothing else would tell. They stand still, so that
// none is opened in between.
func noSemaphores(pids []int) error {
	for _, pid := range pids {
		dir := filepath.Join("/proc", strconv.Itoa(pid))
		fds, err := os.ReadDir(filepath.Join(dir, "fd"))
		if err != nil {
			continue // it has ended
		}
		for _, fd := range fds {
			if to, err := os.Readlink(filepath.Join(dir, "fd", fd.Name())); err != nil || to != "anon_inode:[eventfd]" {
				continue
			}
			info, err := os.ReadFile(filepath.Join(dir, "fdinfo", fd.Name()))
			if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
				continue
			}
			if err != nil {
				return fmt.Errorf("look at descriptor %s of process %d: %w", fd.Name(), pid, err)
			}
			// Kernels before 6.5 do not tell.
			if bytes.Contains(info, []byte("\neventfd-semaphore: 1")) {
				return fmt.Errorf("process %d uses an eventfd as a semaphore (EFD_SEMAPHORE, descriptor %s), which CRIU would make a plain one in clones: capture the program before it opens this, or without what uses it: %w",
					pid, fd.Name(), errdefs.ErrFailedPrecondition)
			}
		}
	}
	return nil
}

package libct

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"
)

// Process is a process that the shim is the parent of.
type Process struct {
	pid int
	p   *libcontainer.Process
}

func newProcess(pid int, p *libcontainer.Process) *Process {
	waitedFor.Store(pid, struct{}{})
	return &Process{pid: pid, p: p}
}

// PID is the process's id.
func (p *Process) PID() int { return p.pid }

// Signal sends sig to the process. It works while a dump or restore is under
// way. NotFound after the exit.
func (p *Process) Signal(sig unix.Signal) error {
	err := p.p.Signal(sig)
	if errors.Is(err, os.ErrProcessDone) || errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("process already finished: %w", errdefs.ErrNotFound)
	}
	return err
}

// Wait blocks until the process has exited and returns its exit code, or 128
// plus the number of the signal that ended it. It is called once.
func (p *Process) Wait() (int, error) {
	st, err := p.p.Wait()
	waitedFor.Delete(p.pid)
	if st == nil {
		return 0, err
	}
	ws, ok := st.Sys().(syscall.WaitStatus)
	if !ok {
		return st.ExitCode(), nil
	}
	if ws.Signaled() {
		return exitSignalOffset + int(ws.Signal()), nil
	}
	return ws.ExitStatus(), nil
}

const exitSignalOffset = 128

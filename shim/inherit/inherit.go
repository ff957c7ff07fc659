// Package inherit lets one child process inherit descriptors that no other gets.
//
// Where a library starts the child, its descriptors cannot be chosen: the child has
// those that are not closed on exec. Lend clears that flag, and while it does, nobody
// else may start a process: whoever does, calls Guard. libcontainer, moreover, sets the flag
// on all descriptors whenever it starts a container's process.
//
// Its one lock is taken last and held while a process is started: by Lend for the
// milliseconds until CRIU runs, by others for as long as libcontainer takes, hooks included.
package inherit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"
)

// forks admits one lender, or any number of others.
var forks = semaphore.NewWeighted(everybody)

const everybody = 1 << 30

// patience bounds the wait for others' hooks.
const patience = 20 * time.Second

// Guard keeps lent descriptors from the processes that are started before done is called.
func Guard() (done func()) {
	_ = forks.Acquire(context.Background(), 1) // a lender is quick, and nothing else can fail
	return func() { forks.Release(1) }
}

// Lend lets the processes that are started before takeBack is called inherit files, under
// the numbers that they have here. Without files it is Guard.
func Lend(ctx context.Context, files []*os.File) (takeBack func(), err error) {
	if len(files) == 0 {
		return sync.OnceFunc(Guard()), nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := forks.Acquire(ctx, everybody); err != nil {
		return nil, fmt.Errorf("lend descriptors: another process is being started: %w", err)
	}
	takeBack = sync.OnceFunc(func() {
		for _, f := range files {
			unix.CloseOnExec(int(f.Fd()))
		}
		forks.Release(everybody)
	})
	for _, f := range files {
		if _, err := unix.FcntlInt(f.Fd(), unix.F_SETFD, 0); err != nil {
			takeBack()
			return nil, fmt.Errorf("lend descriptor of %s: %w", f.Name(), err)
		}
	}
	return takeBack, nil
}

// lowest is above the numbers that a child's own descriptors get (os/exec.Cmd.ExtraFiles), and below
// 64, up to which a process has a table from its beginning: the kernel lets who makes it longer
// wait for a grace period of RCU, some milliseconds, if there are threads.
const lowest = 40

// Raise gives f a number that a child can inherit it under, and closes f.
func Raise(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, lowest)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("raise descriptor of %s: %w", f.Name(), err), f.Close())
	}
	return os.NewFile(uintptr(fd), f.Name()), f.Close()
}

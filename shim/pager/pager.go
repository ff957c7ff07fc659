// Package pager runs CRIU's lazy-pages daemon, which gives the memory of a restored
// task back page by page (userfaultfd(2)): what the program touches at once, the rest
// behind its back.
//
// The pager belongs to the task and not to the shim. It goes on if the shim dies, ends
// by itself when all pages are delivered or nobody needs them, and is in the cgroup of the
// shim: it is none of the container's processes, a paused task gets its pages, and its
// work is not throttled by the container's limits. (The pages themselves are charged to the task.)
//
// When a userfaultfd is closed, the kernel lets the areas read as zeroes where pages are
// missing. A pager that dies early would thus let the program run on with wrong memory. So
// the shim holds copies of the descriptors, and as long as it does the program
// stands still at a missing page; whoever uses the package ends the task before they are closed.
package pager

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/shim/inherit"
)

// socket is where CRIU's restore and its lazy-pages daemon meet, in the work directory.
const socket = "lazy-pages.socket"

// LogFile is the pager's log, in the work directory.
const LogFile = "lazy-pages.log"

// readyTimeout bounds the pager's start, which takes some 30 ms.
const readyTimeout = 20 * time.Second

// ErrDied is how a pager ended that did not deliver all pages.
var ErrDied = errors.New("the pager of memory=lazy ended before it had delivered all pages")

// Config says what a pager is for.
type Config struct {
	// CRIU is the program's absolute path.
	CRIU string
	// Images is the directory of the images, in the copy form. CRIU opens what it needs of
	// it when the restore connects.
	Images string
	// Work is a directory for this restore alone: CRIU's restore must have it as its own
	// work directory.
	Work string
	// Died is called, once, if the pager ends before it has delivered all pages, after it
	// was Ready and before Stop: it ends the task. Until it returns the program stands still at a
	// missing page, of processes whose descriptor was copied (see interval).
	Died func(error)
}

// Pager is a pager that was started.
type Pager struct {
	config Config
	cmd    *exec.Cmd
	pidfd  int
	// status gets a byte when the pager listens.
	status *os.File
	// armed says that the pager's death would be the task's.
	armed atomic.Bool
	// attended says that the pager has, or will soon have, descriptors to copy.
	attended atomic.Bool
	// done is closed when the pager has ended; err is then how.
	done chan struct{}
	err  error
}

// Start starts a pager. After an error nothing of it is left.
func Start(ctx context.Context, c Config) (*Pager, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start the pager: %w", err)
	}
	defer w.Close()
	p := &Pager{config: c, status: r, done: make(chan struct{})}
	// Not of the context: it has to outlive the call.
	p.cmd = exec.CommandContext(context.WithoutCancel(ctx), c.CRIU, "lazy-pages", "--no-default-config",
		"--images-dir", c.Images, "--work-dir", c.Work, "--status-fd", "3", "-v1", "--log-file", LogFile)
	p.cmd.ExtraFiles = []*os.File{w}
	// In a session of its own no signal to the shim's processes, or for want of them, reaches it.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, PidFD: &p.pidfd}
	done := inherit.Guard()
	err = p.cmd.Start()
	done()
	if err != nil {
		r.Close()
		return nil, fmt.Errorf("start the pager: %w", err)
	}
	err = record(c.Work, p.PID())
	go p.watch()
	if err != nil {
		p.Stop()
		return nil, fmt.Errorf("start the pager: %w", err)
	}
	return p, nil
}

// Ready waits until a restore can connect, within readyTimeout. After an error nothing of
// the pager is left.
func (p *Pager) Ready(ctx context.Context) error {
	deadline := time.Now().Add(readyTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	err := p.status.SetReadDeadline(deadline)
	if err == nil {
		_, err = p.status.Read(make([]byte, 1))
	}
	if err != nil {
		p.Stop()
		return fmt.Errorf("the pager of CRIU does not come up: %w%s", err, lastWords(p.config.Work))
	}
	p.armed.Store(true)
	return nil
}

// PID is the pager's process id.
func (p *Pager) PID() int { return p.cmd.Process.Pid }

// watch holds copies of the pager's descriptors until it has ended.
func (p *Pager) watch() {
	g := newGuard(p.PID(), p.pidfd)
	g.run(&p.attended)
	err := p.cmd.Wait()
	unix.Close(p.pidfd)
	if err != nil {
		p.err = fmt.Errorf("%w: %w%s", ErrDied, err, lastWords(p.config.Work))
		if p.armed.Load() {
			p.config.Died(p.err)
		}
	}
	g.close()
	p.status.Close()
	forget(p.config.Work)
	close(p.done)
}

// Attend begins to copy the pager's descriptors. It is to be called before the restore goes
// on from where it has namespaces and no memory.
func (p *Pager) Attend() {
	if p != nil {
		p.attended.Store(true)
	}
}

// Err is how the pager died, or nil: it goes on, or has delivered all pages.
func (p *Pager) Err() error {
	if p == nil {
		return nil
	}
	select {
	case <-p.done:
		return p.err
	default:
		return nil
	}
}

// Wait waits until all pages are delivered.
func (p *Pager) Wait(ctx context.Context) error {
	if p == nil {
		return nil
	}
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return fmt.Errorf("wait for the pages that memory=lazy has yet to deliver: %w", ctx.Err())
	}
}

// Stop ends the pager, if it has not ended, and removes what is left of it.
//
// Precondition: nothing runs any more that is in need of pages.
func (p *Pager) Stop() {
	if p == nil {
		return
	}
	p.armed.Store(false)
	_ = p.cmd.Process.Kill() // unless it has ended
	<-p.done
}

// lastWords is what the log says last, to follow an error.
func lastWords(work string) string {
	data, err := os.ReadFile(filepath.Join(work, LogFile))
	if err != nil {
		return ""
	}
	text := strings.TrimSpace(string(data))
	if i := strings.LastIndexByte(text, '\n'); i >= 0 {
		text = text[i+1:]
	}
	if text == "" {
		return ""
	}
	return ": " + text
}

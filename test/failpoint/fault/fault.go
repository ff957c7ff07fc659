// Package fault makes a shim fail where a container's annotations say so: before or
// after a method of the task service, or at the end of a phase of a start.
package fault

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
)

// The annotations. Where is a method ("Start"), the n-th call of one ("Start@2"),
// or a phase ("phase hold"); how is one of the words below, after "before " or
// "after " for a method.
const (
	Where = "fault.snap.test/where"
	How   = "fault.snap.test/how"
	// Once names a file that is made when it happens: there is no second time, not
	// even in another shim.
	Once = "fault.snap.test/once"
)

// What happens.
const (
	Error = "error"
	Kill  = "kill"
	Panic = "panic"
	Delay = "delay"
)

// delay is long enough for others to see the call under way.
const delay = 700 * time.Millisecond

// errInjected is what a failing call answers.
var errInjected = errors.New("fault injected")

// Fault is the one of a shim.
type Fault struct {
	where, how, once string

	// mu guards calls.
	mu sync.Mutex
	// calls counts the calls of each method.
	calls map[string]int
}

// New reads the fault out of the annotations of the shim's first container.
func New(annotations map[string]string) *Fault {
	return &Fault{where: annotations[Where], how: annotations[How], once: annotations[Once], calls: map[string]int{}}
}

// UnaryServerInterceptor fails the calls that are to fail.
func (f *Fault) UnaryServerInterceptor() ttrpc.UnaryServerInterceptor {
	return func(ctx context.Context, unmarshal ttrpc.Unmarshaler, info *ttrpc.UnaryServerInfo, method ttrpc.Method) (any, error) {
		name := path.Base(info.FullMethod)
		f.mu.Lock()
		f.calls[name]++
		call := fmt.Sprintf("%s@%d", name, f.calls[name])
		f.mu.Unlock()
		if err := f.happen("before ", name, call); err != nil {
			return nil, errgrpc.ToGRPC(err)
		}
		resp, err := method(ctx, unmarshal)
		if err == nil {
			err = errgrpc.ToGRPC(f.happen("after ", name, call))
		}
		if err != nil {
			return nil, err
		}
		return resp, nil
	}
}

// Phase is called at the end of each phase of a start.
func (f *Fault) Phase(_, phase string) {
	// A phase has no answer: what cannot be told is no error.
	_ = f.happen("", "phase "+phase)
}

// happen does what is to be done at one of places.
func (f *Fault) happen(when string, places ...string) error {
	how, ok := strings.CutPrefix(f.how, when)
	if !ok {
		return nil
	}
	for _, p := range places {
		if p == f.where {
			return f.fail(when+p, how)
		}
	}
	return nil
}

func (f *Fault) fail(where, how string) error {
	mark, err := os.OpenFile(f.once, os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil //nolint:nilerr // it has happened
	}
	mark.Close()
	switch how {
	case Kill:
		err = unix.Kill(os.Getpid(), unix.SIGKILL)
		time.Sleep(time.Hour) // it comes when the system call returns, or a moment later
		return err
	case Panic:
		panic(fmt.Sprintf("%v %s", errInjected, where)) //nolint:forbidigo // to die of it is what is asked for
	case Delay:
		time.Sleep(delay)
		return nil
	}
	return fmt.Errorf("%w %s", errInjected, where)
}

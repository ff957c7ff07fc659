package start

import (
	"sync/atomic"
	"time"

	"github.com/containerd-snap/snap/checkpoint"
)

// Birth says when the shim itself was started: what the first container waits for.
type Birth struct {
	// Executed is when the short-lived side began, Server when it executed the server, Main
	// when that began, and Ready when it could serve. Zero where it is not known.
	Executed, Server, Main, Ready time.Time

	told atomic.Bool
}

// phases are the parts of the shim's start, as seen from the first start of a container, at;
// none for any other, or if something is not known.
func (b *Birth) phases(at time.Time) []checkpoint.Phase {
	if b == nil || b.Executed.IsZero() || b.Server.IsZero() || b.told.Swap(true) {
		return nil
	}
	between := func(name string, from, to time.Time) checkpoint.Phase {
		return checkpoint.Phase{Name: name, AtMS: milliseconds(from.Sub(at)), MS: milliseconds(to.Sub(from))}
	}
	return []checkpoint.Phase{
		between("bootstrap", b.Executed, b.Server), between("exec of the server", b.Server, b.Main), between("server", b.Main, b.Ready),
	}
}

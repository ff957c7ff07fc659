package libct

import (
	"fmt"
	"os"
	"os/signal"
	"sync"
	"time"

	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"
)

// adoption makes us the parent of orphans, and buries them.
//
// In a container without a pid namespace of its own nobody is there for a process
// whose parent has ended: it goes to the nearest ancestor that is a child subreaper
// (prctl(2), PR_SET_CHILD_SUBREAPER), or to process 1, which in a minimal system may
// not care. As under the stock shim, it goes to the shim.
//
// Nobody may wait for just any child, or the exits of those that libcontainer and
// os/exec wait for would be lost. What is buried is a dead child that nobody waits
// for and that we did not start: it is in another session than we are. What we start
// is in ours (CRIU, hooks, logging programs) until libcontainer gives it one of its own,
// which it then leads; and of that newProcess knows, once no launch is under way. An
// orphan in our session, which hooks and logging programs can leave, is one that was
// not waited for in all of mourning.
type adoption struct {
	// again is sent to when what could not be told apart may be now.
	again chan struct{}
	// dead is when a child of our own session was first seen dead.
	dead map[int]time.Time
}

var adopted = adoption{again: make(chan struct{}, 1), dead: map[int]time.Time{}}

// mourning is far more than those take who wait for a child that they started.
const mourning = 10 * time.Second

// adopts says that orphans of a container with this configuration are to come to us.
func adopts(cfg *configs.Config) bool { return !cfg.Namespaces.IsPrivate(configs.NEWPID) }

// adopt makes us a child subreaper, for good: processes of a container may outlive it.
var adopt = sync.OnceValue(func() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become the parent of orphans: %w", err)
	}
	died := make(chan os.Signal, 1)
	signal.Notify(died, unix.SIGCHLD)
	go adopted.watch(died)
	return nil
})

func (a *adoption) watch(died <-chan os.Signal) {
	for {
		var later <-chan time.Time
		if a.bury(time.Now()) {
			later = time.After(mourning)
		}
		select {
		case <-died:
		case <-a.again:
		case <-later:
		}
	}
}

// bury waits for the orphans that are dead at this time. left says that it is to be
// called again, later.
func (a *adoption) bury(now time.Time) (left bool) {
	still := map[int]time.Time{}
	for _, pid := range children() {
		c := look(pid)
		if !c.zombie || c.nested {
			continue
		}
		if c.ours {
			since, seen := a.dead[pid]
			if !seen {
				since = now
			}
			if now.Sub(since) < mourning {
				still[pid] = since
				continue
			}
		}
		if c.ours || c.leads {
			launching.unless(func() {
				// It may have become known since it was looked at.
				if look(pid).zombie {
					take(pid)
				}
			})
			continue
		}
		take(pid)
	}
	a.dead = still
	return len(still) > 0
}

// take waits for a child that is dead.
func take(pid int) {
	for {
		if _, err := unix.Wait4(pid, nil, unix.WNOHANG, nil); err != unix.EINTR {
			return
		}
	}
}

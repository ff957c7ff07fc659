package parity

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	eventsapi "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// recording is what containerd tells of the tasks of one container, in its order.
type recording struct {
	// mu guards said.
	mu   sync.Mutex
	said []string
}

// record listens to what containerd tells of a container.
func (s *side) record(id string) *recording {
	s.Helper()
	r := &recording{}
	ctx, cancel := context.WithCancel(s.Context())
	s.Cleanup(cancel)
	messages, errs := node.Client().EventService().Subscribe(ctx, `topic~="^/tasks/"`)
	go func() {
		for {
			select {
			case m := <-messages:
				v, err := typeurl.UnmarshalAny(m.Event)
				if err != nil {
					continue
				}
				if of, text := describe(m.Topic, v); of == id {
					r.mu.Lock()
					r.said = append(r.said, text)
					r.mu.Unlock()
				}
			case <-errs:
				return
			}
		}
	}()
	return r
}

// describe returns which container an event is of, and the event with all of
// its fields that are the same for both runtimes.
func describe(topic string, v any) (id, text string) {
	yes := func(b bool, word string) string {
		if b {
			return " " + word
		}
		return ""
	}
	switch e := v.(type) {
	case *eventsapi.TaskCreate:
		io := e.GetIO()
		id, text = e.ContainerID, yes(e.Pid > 0, "pid")+yes(e.Bundle != "", "bundle")+yes(len(e.Rootfs) > 0, "rootfs")+yes(io.GetStdout() != "", "stdout")+yes(e.Checkpoint != "", "checkpoint")
	case *eventsapi.TaskStart:
		id, text = e.ContainerID, yes(e.Pid > 0, "pid")
	case *eventsapi.TaskExecAdded:
		id, text = e.ContainerID, " "+e.ExecID
	case *eventsapi.TaskExecStarted:
		id, text = e.ContainerID, " "+e.ExecID+yes(e.Pid > 0, "pid")
	case *eventsapi.TaskExit:
		id, text = e.ContainerID, yes(e.ID == e.ContainerID, "init")+yes(e.ID != e.ContainerID, e.ID)+fmt.Sprintf(" %d", e.ExitStatus)+
			yes(e.Pid > 0, "pid")+yes(time.Since(e.ExitedAt.AsTime()) < time.Minute, "now")
	case *eventsapi.TaskDelete:
		id, text = e.ContainerID, yes(e.ID == "" || e.ID == e.ContainerID, "init")+yes(e.ID != "" && e.ID != e.ContainerID, e.ID)+fmt.Sprintf(" %d", e.ExitStatus)+
			yes(e.Pid > 0, "pid")+yes(time.Since(e.ExitedAt.AsTime()) < time.Minute, "now")
	case *eventsapi.TaskOOM:
		id = e.ContainerID
	case *eventsapi.TaskPaused:
		id = e.ContainerID
	case *eventsapi.TaskResumed:
		id = e.ContainerID
	case *eventsapi.TaskCheckpointed:
		id, text = e.ContainerID, yes(e.Checkpoint != "", "checkpoint")
	}
	return id, strings.TrimPrefix(topic, "/tasks/") + text
}

func (r *recording) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.said)
}

// has waits until an event has been told.
func (r *recording) has(s *side, event string) {
	s.Helper()
	s.eventually(func() error {
		if got := r.all(); !slices.ContainsFunc(got, func(e string) bool { return strings.HasPrefix(e, event) }) {
			return fmt.Errorf("events %q, want one of %q", got, event)
		}
		return nil
	})
}

// deleteAndSee deletes the task, which has ended, and notes the events up to its
// exit. The stock shim is asked to end before it has told of the deletion, and
// loses that event at times; ours must tell it, and as the last one.
func (c *container) deleteAndSee(r *recording) {
	c.Helper()
	r.has(c.side, "exit init")
	st, err := c.task.Delete(c.context())
	c.must(err)
	c.see("the deletion's exit", "%d", st.ExitCode())
	if !c.isStock() {
		r.has(c.side, "delete init")
		if said := r.all(); said[len(said)-1] != fmt.Sprintf("delete init %d pid now", st.ExitCode()) {
			c.Errorf("the last event is %q", said[len(said)-1])
		}
	}
	said := slices.DeleteFunc(r.all(), func(e string) bool { return strings.HasPrefix(e, "delete init") })
	for n, e := range said {
		if strings.HasPrefix(e, "exit e") {
			// Which of two execs is told first is chance.
			said[n] = "exit of an exec" + e[len("exit e1"):]
		}
	}
	c.see("events", "%s", strings.Join(said, "\n"))
}

func (s *side) named(w want) (want, *recording) {
	w.id = fmt.Sprintf("p%d", serial.Add(1))
	return w, s.record(w.id)
}

func TestEvents(t *testing.T) {
	compare(t, "a whole life", func(s *side) {
		w, r := s.named(shell("sleep 1000"))
		c := s.started(w)
		ctx := s.context()
		s.must(c.task.Pause(ctx))
		s.must(c.task.Resume(ctx))
		e, err := c.task.Exec(ctx, "e1", c.process("sh", "-c", "exit 5"), cio.NullIO)
		s.must(err)
		exit, err := e.Wait(ctx)
		s.must(err)
		s.must(e.Start(ctx))
		<-exit
		_, err = e.Delete(ctx)
		s.must(err)
		s.must(c.task.Kill(ctx, unix.SIGTERM))
		s.must(c.task.Kill(ctx, unix.SIGKILL))
		c.wait()
		c.deleteAndSee(r)
	})
	compare(t, "a short life", func(s *side) {
		w, r := s.named(shell("exit 3"))
		c := s.started(w)
		c.wait()
		c.deleteAndSee(r)
	})
	compare(t, "never started", func(s *side) {
		w, r := s.named(shell("exit 3"))
		c := s.created(w)
		s.must(c.task.Kill(s.context(), unix.SIGKILL))
		s.see("exit", "%d", c.wait())
		c.deleteAndSee(r)
	})
	compare(t, "execs end with init", func(s *side) {
		w, r := s.named(shell("sleep 1000"))
		c := s.started(w)
		for _, id := range []string{"e1", "e2"} {
			e, err := c.task.Exec(s.context(), id, c.process("sleep", "1000"), cio.NullIO)
			s.must(err)
			s.must(e.Start(s.context()))
		}
		s.must(c.task.Kill(s.context(), unix.SIGKILL))
		c.wait()
		c.deleteAndSee(r)
	})
	compare(t, "out of memory", func(s *side) {
		w, r := s.named(shell("x=a; while true; do x=$x$x; done", oci.WithMemoryLimit(20<<20)))
		c := s.started(w)
		s.see("exit", "%d", c.wait())
		c.deleteAndSee(r)
	})
	compare(t, "an exec out of memory", func(s *side) {
		w, r := s.named(shell("echo -n; sleep 1000", oci.WithMemoryLimit(20<<20)))
		c := s.started(w)
		_, code := c.run("sh", "-c", "x=a; while true; do x=$x$x; done")
		s.see("exit of the exec", "%d", code)
		s.see("the task is", "%s", statusOf(c))
		s.eventually(func() error {
			if !slices.Contains(r.all(), "oom") {
				return fmt.Errorf("events %q", r.all())
			}
			return nil
		})
		s.see("told", "oom")
	})
	compare(t, "a failed start", func(s *side) {
		w, r := s.named(want{args: []string{"/nonexistent"}})
		c := s.newContainer(w)
		err := c.create(w)
		s.seeError("create", err)
		if err == nil {
			s.seeError("start", c.task.Start(s.context()))
			c.wait()
			c.deleteAndSee(r)
		}
	})
	compare(t, "killed by nobody's shim", func(s *side) {
		w, r := s.named(shell("sleep 1000"))
		c := s.started(w)
		s.must(unix.Kill(int(c.task.Pid()), unix.SIGKILL))
		s.see("exit", "%d", c.wait())
		c.deleteAndSee(r)
	})
	compare(t, "a failed exec", func(s *side) {
		w, r := s.named(shell("sleep 1000"))
		c := s.started(w)
		e, err := c.task.Exec(s.context(), "e", c.process("/nonexistent"), cio.NullIO)
		s.must(err)
		s.seeError("start", e.Start(s.context()))
		st, err := e.Delete(s.context())
		s.seeError("delete", err)
		if err == nil {
			s.see("exit", "%d", st.ExitCode())
		}
		s.must(c.task.Kill(s.context(), unix.SIGKILL))
		c.wait()
		c.deleteAndSee(r)
	})
}

// TestProcesses: processes beside init, and what becomes of them.
func TestProcesses(t *testing.T) {
	// Where pids are the host's, nobody in the container is there for orphans.
	for name, opts := range map[string][]oci.SpecOpts{"own pids": nil, "host's pids": {without(specs.PIDNamespace)}} {
		compare(t, name+": orphan of an exec", func(s *side) {
			c := s.started(shell("while :; do sleep 0.2; done", opts...))
			_, code := c.run("sh", "-c", "sleep 999 >/dev/null 2>&1 </dev/null & exit 4")
			s.see("exit", "%d", code)
			s.see("it lives", "%t", strings.Contains(c.commands(), "sleep 999"))
			s.see("its parent", "%s", c.parentOf("sleep 999"))
			c.killCommand("sleep 999")
			s.eventually(func() error {
				if got := c.commands(); strings.Contains(got, "999") || strings.Contains(got, "zombie") {
					return fmt.Errorf("processes %s", got)
				}
				return nil
			})
			s.must(c.task.Kill(s.context(), unix.SIGKILL))
			s.see("exit of init", "%d", c.wait())
		})
		compare(t, name+": init leaves processes", func(s *side) {
			w, r := s.named(shell("sleep 999 & sleep 998 & exit 6", opts...))
			c := s.started(w)
			s.see("exit", "%d", c.wait())
			if !s.isStock() {
				// The stock shim leaves them until the deletion at times.
				s.eventually(func() error {
					if got := c.commands(); got != "" {
						return fmt.Errorf("processes %s", got)
					}
					return nil
				})
			}
			c.deleteAndSee(r)
			s.eventually(func() error {
				if got := c.commands(); got != "" {
					return fmt.Errorf("processes %s after the deletion", got)
				}
				return nil
			})
		})
		compare(t, name+": orphans are reaped", func(s *side) {
			c := s.started(shell("(sleep 0.1 & sleep 0.1 & exit) ; echo left; while :; do sleep 1; done", opts...))
			c.waitFor(c.out, "left")
			s.eventually(func() error {
				if got := c.commands(); strings.Contains(got, "sleep 0.1\n") || strings.Contains(got, "zombie") {
					return fmt.Errorf("processes %s", got)
				}
				return nil
			})
			s.see("the task is", "%s", statusOf(c))
		})
		compare(t, name+": exits beside orphans", func(s *side) {
			// Orphans of all sorts end all the time: some lead sessions, and some hold
			// the streams of an exec.
			c := s.started(shell("while :; do (sleep 0.02 & setsid sleep 0.01 & exit); sleep 0.02; done", opts...))
			var wg sync.WaitGroup
			codes := make([]uint32, 12)
			for n := range codes {
				wg.Go(func() {
					_, codes[n] = c.run("sh", "-c", fmt.Sprintf("(sleep 0.01 & setsid true & exit); exit %d", n+1))
				})
			}
			wg.Wait()
			s.see("exits of execs", "%v", codes)
			s.must(c.task.Kill(s.context(), unix.SIGKILL))
			s.see("exit of init", "%d", c.wait())
			s.eventually(func() error {
				if got := c.commands(); got != "" {
					return fmt.Errorf("processes %s", got)
				}
				return nil
			})
		})
		compare(t, name+": kill all", func(s *side) {
			c := s.started(shell(`loop() { trap "echo $1 got it" USR1; while :; do sleep 0.05; done; }; loop one & loop two & loop init`, opts...))
			time.Sleep(300 * time.Millisecond)
			for _, opts := range [][]client.KillOpts{nil, {withAll}} {
				before := strings.Count(c.out.String(), "init got it")
				s.must(c.task.Kill(s.context(), unix.SIGUSR1, opts...))
				s.eventually(func() error {
					if got := strings.Count(c.out.String(), "init got it"); got == before {
						return fmt.Errorf("init did not get the signal: %s", c.out)
					}
					return nil
				})
			}
			time.Sleep(200 * time.Millisecond)
			out := strings.Split(strings.TrimSpace(c.out.String()), "\n")
			slices.Sort(out)
			s.see("who got a signal", "%s", strings.Join(out, "\n"))
			s.must(c.task.Kill(s.context(), unix.SIGKILL, withAll))
			s.see("exit", "%d", c.wait())
		})
	}
	compare(t, "pids", func(s *side) {
		c := s.started(shell("sleep 1000 & sleep 1000"))
		e, err := c.task.Exec(s.context(), "named", c.process("sleep", "1000"), cio.NullIO)
		s.must(err)
		s.must(e.Start(s.context()))
		s.eventually(func() error {
			pids, err := c.task.Pids(s.context())
			if err == nil && len(pids) != 3 {
				return fmt.Errorf("%d processes", len(pids))
			}
			return err
		})
		pids, err := c.task.Pids(s.context())
		s.must(err)
		var said []string
		for _, p := range pids {
			text := "another"
			if p.Pid == c.task.Pid() {
				text = "init"
			}
			if p.Info != nil {
				v, err := typeurl.UnmarshalAny(p.Info)
				s.must(err)
				text = fmt.Sprintf("%T %v, exec's own: %t", v, v, p.Pid == e.Pid())
			}
			said = append(said, text)
		}
		slices.Sort(said)
		s.see("pids", "%s", strings.Join(said, "\n"))
	})
}

package parity

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"golang.org/x/sys/unix"
)

// fds prints what the standard streams are.
const fds = `for n in 0 1 2; do f=$(readlink /proc/$$/fd/$n); echo $n "${f%%:*}"; done; `

// logger is a logging program: it is told the container on its command line and
// in its environment, and reads its streams from descriptors 3 and 4. The stock runtime tells the
// pairs of its URI in any order.
const logger = `#!/bin/sh
trap '' TERM
if [ "$1" = out ]; then out=$2; shift 2; fi
more="$1 $2"
[ -n "$out" ] || out=$4
[ -z "$READY" ] || printf x >&5
exec 5>&-
{ cat; echo "$CONTAINER_ID $CONTAINER_NAMESPACE $more"; } <&3 >$out.out &
cat <&4 >$out.err &
exec 3<&- 4<&-
wait
`

func TestStdio(t *testing.T) {
	compare(t, "streams", func(s *side) {
		c := s.started(shell("echo to stdout; echo to stderr >&2; cat; echo end"))
		fmt.Fprintln(c.stdin, "a line")
		c.waitFor(c.out, "a line")
		c.stdin.Close()
		s.must(c.task.CloseIO(s.context(), client.WithStdinCloser))
		s.see("exit", "%d", c.wait())
		c.task.IO().Wait()
		s.see("stdout", "%s", c.out.String())
		s.see("stderr", "%s", c.err.String())
	})
	compare(t, "no streams", func(s *side) {
		dir := s.TempDir()
		c := s.started(want{args: []string{"sh", "-c", "{ " + fds + "cat; echo read to the end; } >/log/out"}, io: cio.NullIO, opts: bind(dir, "/log")})
		s.see("exit", "%d", c.wait())
		out, err := os.ReadFile(filepath.Join(dir, "out"))
		s.must(err)
		s.see("streams", "%s", out)
	})
	compare(t, "input stays open", func(s *side) {
		// Who only detaches does not end a program's input.
		c := s.started(shell("read line; echo got $line; read line || echo end of input"))
		fmt.Fprintln(c.stdin, "one")
		c.waitFor(c.out, "got one")
		c.stdin.Close()
		time.Sleep(200 * time.Millisecond)
		s.see("after the detachment", "%s", c.out.String())
		s.must(c.task.CloseIO(s.context(), client.WithStdinCloser))
		s.see("in the end", "%s", c.output())
	})
	compare(t, "large output", func(s *side) {
		c := s.started(shell("head -c 3000000 /dev/zero | tr '\\0' x; echo end >&2"))
		out := c.output()
		s.see("bytes", "%d %s", len(out), c.err.String())
	})
	compare(t, "terminal", func(s *side) {
		w := shell("tty; test -t 0 -a -t 1 -a -t 2 && echo all three; stty -echo; stat -c '%n %F %a' /dev/console; while read cmd; do eval \"$cmd\"; done")
		w.terminal = true
		c := s.started(w)
		c.waitFor(c.out, "console")
		s.must(c.task.Resize(s.context(), 123, 45))
		fmt.Fprintln(c.stdin, "stty size; stty -a | tr ';' '\\n' | grep -E 'speed|isig|onlcr|intr'; cut -d' ' -f5-7 /proc/$$/stat; echo; echo asked")
		c.waitFor(c.out, "asked")
		fmt.Fprintln(c.stdin, "exit 9")
		s.see("exit", "%d", c.wait())
		c.task.IO().Wait()
		s.see("output", "%s", c.out.String())
	})
	compare(t, "terminal of a given size", func(s *side) {
		w := shell("stty size")
		w.terminal = true
		w.opts = append(w.opts, edit(consoleSize))
		s.see("size", "%s", s.started(w).output())
	})
	compare(t, "file", func(s *side) {
		dir := s.TempDir()
		path := filepath.Join(dir, "new", "log")
		w := shell("echo out; sleep 0.2; echo err >&2; sleep 0.2")
		w.io = cio.LogFile(path)
		c := s.started(w)
		s.see("exit", "%d", c.wait())
		_, err := c.task.Delete(s.context())
		s.must(err)
		s.seeFile("log", path)
		s.must(c.create(want{io: cio.LogFile(path)}))
		s.must(c.task.Start(s.context()))
		c.wait()
		_, err = c.task.Delete(s.context())
		s.must(err)
		s.seeFile("log of two tasks", path)
	})
	for _, scheme := range []string{"binary", "binary-v2"} {
		compare(t, scheme, func(s *side) {
			dir := s.TempDir()
			program, out := filepath.Join(dir, "logger"), filepath.Join(dir, "log")
			script := logger
			if scheme == "binary-v2" {
				script = strings.Replace(script, "#!/bin/sh\n", "#!/bin/sh\nREADY=1\n", 1)
			}
			s.must(os.WriteFile(program, []byte(script), 0o700))
			uri := fmt.Sprintf("%s://%s?out=%s&more=words", scheme, program, out)
			c := s.newContainer(shell("echo out; echo err >&2"))
			s.must(c.create(want{io: at(uri)}))
			s.must(c.task.Start(s.context()))
			s.see("exit", "%d", c.wait())
			_, err := c.task.Delete(s.context())
			s.must(err)
			// The program may take its time.
			s.eventually(func() error {
				stderr, err := os.ReadFile(out + ".err")
				if err == nil && len(stderr) == 0 {
					err = errors.New("nothing on stderr yet")
				}
				stdout, oerr := os.ReadFile(out + ".out")
				if oerr == nil && !strings.Contains(string(stdout), "words") {
					oerr = errors.New("the program has not ended yet")
				}
				return errors.Join(err, oerr)
			})
			s.seeFile("stderr", out+".err")
			data, err := os.ReadFile(out + ".out")
			s.must(err)
			s.see("stdout", "%s", c.normal(string(data)))
		})
		compare(t, scheme+" that fails", func(s *side) {
			c := s.newContainer(shell("echo out"))
			_, err := c.NewTask(s.context(), at(scheme+":///bin/false"))
			s.seeError("logger that ends at once", err)
			c = s.newContainer(shell("echo out"))
			_, err = c.NewTask(s.context(), at(scheme+":///does/not/exist"))
			s.seeError("logger that is not there", err, "/does/not/exist")
		})
	}
	compare(t, "bad streams", func(s *side) {
		for what, uri := range map[string]string{
			"a scheme that nobody knows": "http://127.0.0.1/log",
			"no such FIFO":               "/does/not/exist",
		} {
			c := s.newContainer(shell("echo out"))
			_, err := c.NewTask(s.context(), at(uri))
			s.seeError(what, err)
		}
		slices.SortFunc(s.seen, func(a, b observation) int { return strings.Compare(a.what, b.what) })
	})
	compare(t, "exec with a terminal", func(s *side) {
		c := s.started(shell("sleep 1000"))
		out := &output{}
		stdin, w, err := os.Pipe()
		s.must(err)
		s.Cleanup(func() { w.Close() })
		p := c.process("sh", "-c", "tty; stty -echo; echo quiet; while read cmd; do eval \"$cmd\"; done")
		p.Terminal = true
		e, err := c.task.Exec(s.context(), "e", p, cio.NewCreator(cio.WithStreams(stdin, out, nil), cio.WithTerminal, cio.WithFIFODir(node.Dir)))
		s.must(err)
		exit, err := e.Wait(s.context())
		s.must(err)
		s.must(e.Start(s.context()))
		c.waitFor(out, "quiet")
		s.must(e.Resize(s.context(), 91, 31))
		fmt.Fprintln(w, "stty size; cut -d' ' -f7 /proc/$$/stat; echo asked")
		c.waitFor(out, "asked")
		fmt.Fprintln(w, "exit 3")
		st := <-exit
		s.see("exit", "%d", st.ExitCode())
		e.IO().Wait()
		s.see("output", "%s", out)
	})
	compare(t, "exec without streams", func(s *side) {
		c := s.started(shell("sleep 1000"))
		e, err := c.task.Exec(s.context(), "e", c.process("sh", "-c", "{ "+fds+"cat; echo read to the end; } >/out"), cio.NullIO)
		s.must(err)
		exit, err := e.Wait(s.context())
		s.must(err)
		s.must(e.Start(s.context()))
		st := <-exit
		s.see("exit", "%d", st.ExitCode())
		out, _ := c.run("cat", "/out")
		s.see("streams", "%s", out)
	})
	compare(t, "state tells the streams", func(s *side) {
		c := s.started(shell("sleep 1000"))
		st, err := c.shim().State(s.shimContext(), &taskapi.StateRequest{ID: c.ID()})
		s.must(err)
		conf := c.task.IO().Config()
		s.see("stdin", "%t", st.Stdin == conf.Stdin)
		s.see("stdout", "%t", st.Stdout == conf.Stdout)
		s.see("stderr", "%t", st.Stderr == conf.Stderr)
		s.see("bundle", "%t", st.Bundle == c.bundle())
		s.see("id", "%t", st.ID == c.ID())
		s.see("exited at", "%t", st.ExitedAt.AsTime().Year() < 1971)
		s.must(c.task.Kill(s.context(), unix.SIGKILL))
		c.wait()
		st, err = c.shim().State(s.shimContext(), &taskapi.StateRequest{ID: c.ID()})
		s.must(err)
		s.see("exited at, when it has", "%t", time.Since(st.ExitedAt.AsTime()) < time.Minute)
		s.see("pid when it has", "%t", st.Pid == c.task.Pid())
	})
}

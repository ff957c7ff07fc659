package clones

import (
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"

	"github.com/containerd-snap/snap/test/harness/run"
)

const (
	// scribeImage is that of the program scribe, see there.
	scribeImage   = "localhost/snap/scribe:1"
	scribeProgram = "github.com/containerd-snap/snap/test/clones/scribe"
)

// scribe is a container in which the program of that name runs.
type scribe struct{ *run.Container }

func scribeOf(opts ...oci.SpecOpts) run.Want {
	return run.Want{Image: scribeImage, Args: []string{"/bin/scribe"}, Stdin: true, Opts: opts}
}

// startScribe starts one, and waits until it listens.
func startScribe(t *testing.T, opts ...oci.SpecOpts) scribe {
	t.Helper()
	s := scribe{run.Start(t, shared, scribeOf(opts...))}
	s.Out.WaitFor(t, "ready\n")
	return s
}

// ask has the program do a command, and returns its answer.
func (s scribe) ask(command ...string) string {
	s.T.Helper()
	before := len(s.Out.String())
	if _, err := fmt.Fprintln(s.Stdin, strings.Join(command, " ")); err != nil {
		s.T.Fatal(err)
	}
	answer := ""
	run.Eventually(s.T, func() error {
		said := s.Out.String()[before:]
		_, rest, ok := strings.Cut(said, command[0]+" -> ")
		if ok {
			answer, _, ok = strings.Cut(rest, "\n")
		}
		if !ok {
			return fmt.Errorf("%s: no answer to %q: %q", s.ID(), command, said)
		}
		return nil
	})
	return strings.TrimSuffix(answer, "\r")
}

// must has the program do commands that succeed, one a line.
func (s scribe) must(script string) {
	s.T.Helper()
	for line := range strings.Lines(script) {
		command := strings.Fields(line)
		if len(command) == 0 {
			continue
		}
		if answer := s.ask(command...); strings.HasPrefix(answer, "error") {
			s.T.Fatalf("%s: %s: %s", s.ID(), strings.TrimSpace(line), answer)
		}
	}
}

// says checks an answer.
func (s scribe) says(command, want string) {
	s.T.Helper()
	if got := s.ask(strings.Fields(command)...); got != want {
		s.T.Errorf("%s: %s: %s, want %s", s.ID(), command, got, want)
	}
}

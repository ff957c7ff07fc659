package store

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/tally"
)

var aBoot = tally.Start{Decision: checkpoint.Boot, Reason: checkpoint.ClassNone, Outcome: tally.Booted}

func countBoot(t *tally.Tally) {
	t.AddStart(checkpoint.Start{
		Decision: checkpoint.Decision{Action: checkpoint.Boot, Class: checkpoint.ClassNone}, Outcome: checkpoint.Boot,
		Phases: []checkpoint.Phase{{Name: "create", MS: 20}},
	})
}

// childCount counts boots until it is killed, and prints a line after each.
func childCount(root string) error {
	s, err := Open(root)
	if err != nil {
		return err
	}
	for i := 0; ; i++ {
		if err := s.Count(i%7 == 0, countBoot); err != nil {
			return err
		}
		fmt.Println(i)
	}
}

// TestCount kills processes that count at once: none of what they counted is lost, and
// no more than what the killed were at is counted beside.
func TestCount(t *testing.T) {
	s := newStore(t)
	var least, most int64
	for range 10 {
		cs := []*child{startChild(t, "count", s.Root()), startChild(t, "count", s.Root()), startChild(t, "count", s.Root())}
		for _, c := range cs {
			c.line(t)
			least++
		}
		time.Sleep(time.Duration(rand.Int64N(int64(10 * time.Millisecond))))
		for _, c := range cs {
			if err := c.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			for c.lines.Scan() {
				least++
			}
			_ = c.cmd.Wait() // killed
			most++
		}
		if got := s.Tally().Starts[aBoot]; got < least || got > least+most {
			t.Fatalf("%d boots are counted, want %d to %d", got, least, least+most)
		}
	}
	if h := s.Tally().StartTimes[tally.Booted]; h.Count != s.Tally().Starts[aBoot] {
		t.Errorf("%d times of %d starts", h.Count, s.Tally().Starts[aBoot])
	}
	if _, err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	assertClean(t, s, 0)
}

func TestTallyTorn(t *testing.T) {
	s := newStore(t)
	for _, torn := range []string{"", "{", "null x", `{"starts":{"boot/none/boot":-1}}`} {
		if err := os.WriteFile(s.path(tallyDir, tallyName), []byte(torn), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := s.Tally(); len(got.Starts) != 0 {
			t.Errorf("%q: %+v", torn, got)
		}
		if err := s.Count(false, countBoot); err != nil {
			t.Fatal(err)
		}
		if got := s.Tally().Starts[aBoot]; got != 1 {
			t.Errorf("after %q: %d boots", torn, got)
		}
	}
}

func BenchmarkCount(b *testing.B) {
	s := newStore(b)
	for b.Loop() {
		if err := s.Count(false, countBoot); err != nil {
			b.Fatal(err)
		}
	}
}

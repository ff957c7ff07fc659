package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd-snap/snap/checkpoint/retain"
)

// killsEnv sets the number of processes that TestKilledWhilePruning kills.
const killsEnv = "SNAP_STORE_KILLS"

// childRetain registers, pins, unpins and prunes checkpoints until it is killed. It says
// what it has done, and of a pin that it takes back, what it is about to do.
func childRetain(root string) error {
	s, err := Open(root)
	if err != nil {
		return err
	}
	var pins []string
	for i := 0; ; i++ {
		e, err := register(s, testMeta("retain", testTime.Add(time.Duration(i))), CommitOptions{})
		if err != nil {
			return err
		}
		fmt.Println("captured", e.Digest)
		if i%3 == 0 {
			if err := s.Pin(e.Digest); err == nil {
				fmt.Println("pinned", e.Digest)
				pins = append(pins, e.Digest)
			}
		}
		if err := s.RecordSuccess(e.Digest, testTime); err == nil && len(pins) > 3 {
			fmt.Println("unpins", pins[0])
			if err := s.Unpin(pins[0]); err != nil {
				return err
			}
			pins = pins[1:]
		}
		removed, err := s.Prune(context.Background(), retain.Limits{PerImage: 2, MaxBytes: 10 * e.Checkpoint.Bytes()}, pruneTime, false)
		if err != nil {
			return err
		}
		fmt.Println("pruned", len(removed))
	}
}

// TestKilledWhilePruning kills processes that register, pin and prune, two at a time,
// at random moments. There is never half an entry, and no pin is ever lost.
func TestKilledWhilePruning(t *testing.T) {
	kills := 40
	if n, err := strconv.Atoi(os.Getenv(killsEnv)); err == nil {
		kills = n
	}
	s := newStore(t)
	captured, pruned := 0, 0
	for killed := 0; killed < kills; {
		cs := []*child{startChild(t, "retain", s.Root()), startChild(t, "retain", s.Root())}
		for _, c := range cs {
			c.line(t)
			captured++
		}
		time.Sleep(time.Duration(rand.Int64N(int64(25 * time.Millisecond))))
		pinned := map[string]bool{}
		for _, c := range cs {
			if err := c.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			for c.lines.Scan() {
				what, arg, _ := strings.Cut(c.lines.Text(), " ")
				switch what {
				case "captured":
					captured++
				case "pruned":
					pruned++
				case "pinned":
					pinned[arg] = true
				case "unpins":
					delete(pinned, arg)
				}
			}
			if err := c.cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
				t.Fatalf("a child ended by itself: %v: %s", err, c.stderr)
			}
			killed++
		}
		entries := checkWhole(t, s)
		for digest := range pinned {
			if e, err := s.Resolve(digest); err != nil || !e.State.Pinned {
				t.Errorf("after %d kills: the pin of %s is lost: %v", killed, digest, err)
			}
		}
		if _, err := s.Sweep(); err != nil {
			t.Fatal(err)
		}
		assertClean(t, s, len(entries))
		if t.Failed() {
			t.FailNow()
		}
		for _, e := range entries { // the next round begins with an empty store
			if err := s.Unpin(e.Digest); err != nil {
				t.Fatal(err)
			}
			if err := s.Remove(e.Digest); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("%d processes killed amid %d captures and %d prunes", kills, captured, pruned)
}

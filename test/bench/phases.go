package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/api/services/tasks/v1"
	tasktypes "github.com/containerd/containerd/api/types/task"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/test/harness"
	"github.com/containerd-snap/snap/test/measure"
)

// phase is one part of a start, of the median of several.
type phase struct {
	Name string  `json:"name"`
	MS   float64 `json:"ms"`
	// Within says that it is a part of the one before that is not within another.
	Within bool      `json:"within,omitempty"`
	Runs   []float64 `json:"runs_ms"`
}

// The phases that are nobody's span, but lie between those of the shim's record.
const (
	phaseBefore  = "ctr and containerd, until the shim's program runs"
	phaseConnect = "containerd connects to the shim, and calls Create"
	phaseBetween = "ctr and containerd, between Create and Start"
	phaseAnswer  = "first request: from the end of Start to the answer"
)

// notePhases adds the phases of one restore.
func (b *bench) notePhases(program string, r restored) {
	log := filepath.Join(r.record.Bundle, "criu", "restore.log")
	b.addPhases(fmt.Sprintf("%s, restored, memory %s", program, r.record.Memory), split(r.Life, r.record, log))
}

// addPhases adds those of one start to those of the same kind.
func (b *bench) addPhases(kind string, phases []phase) {
	all := b.results.Phases[kind]
	for i, p := range phases {
		at := slices.IndexFunc(all, func(q phase) bool { return q.Name == p.Name && q.Within == p.Within })
		if at < 0 {
			at = min(i, len(all))
			all = slices.Insert(all, at, phase{Name: p.Name, Within: p.Within})
		}
		all[at].Runs = append(all[at].Runs, round(p.MS))
		all[at].MS = round(measure.Median(all[at].Runs))
	}
	b.results.Phases[kind] = all
}

// split tells where the time of a start went: what the shim recorded, what CRIU logged, and
// what lies between these.
func split(l measure.Life, r checkpoint.Start, criuLog string) []phase {
	var all []phase
	// Both clocks are this machine's.
	began := measure.Milliseconds(l.Began.Sub(r.At))
	end := began + measure.Milliseconds(l.Took)
	last, lastName := began, phaseBefore
	until := func(at float64) {
		if at-last > negligible {
			all = append(all, phase{Name: lastName, MS: at - last})
		}
	}
	criu := readCRIULog(criuLog)
	for i, p := range slices.Concat(r.Shim, r.Phases) {
		until(p.AtMS)
		all = append(all, phase{Name: p.Name, MS: p.MS})
		all = append(all, criu.of(p.Name)...)
		last, lastName = p.AtMS+p.MS, phaseBetween
		if i < len(r.Shim) {
			lastName = phaseConnect
		}
	}
	lastName = phaseAnswer
	until(end)
	return all
}

// negligible is a gap of two clocks, no part of a start.
const negligible = 0.05

// criuSpans are the parts of CRIU's work, by the phase of the start in which it was done.
type criuSpans map[string][]phase

func (s criuSpans) of(name string) []phase { return s[name] }

// mark is what CRIU logs at the end of a part.
type mark struct{ text, ends string }

// criuWaits is logged where CRIU waits for the shim: what follows it is the first of the next part.
const criuWaits = "RPC"

// criuMarks are in the order in which CRIU 4 logs them. What comes before the first mark that is
// found is its part; the same for the rest.
var criuMarks = map[string][]mark{
	"hold": {
		{"Running setup-namespaces scripts", "CRIU: begin, images, tree, namespaces"},
	},
	"restore": {
		{"Preparing info about shared resources", "CRIU: namespaces, mounts"},
		{"Restoring resources", "CRIU: images of processes and files"},
		{"Running post-restore scripts", "CRIU: files, memory, threads"},
		{"Running pre-resume scripts", "CRIU: until the program goes on"},
	},
}

// readCRIULog reads the time stamps of a restore.log; nothing where there is none.
func readCRIULog(name string) criuSpans {
	f, err := os.Open(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	spans := criuSpans{}
	var last float64
	waiting := false
	phases, next := []string{"hold", "restore"}, 0
	for s := bufio.NewScanner(f); s.Scan() && len(phases) > 0; {
		ms, text, ok := stamp(s.Text())
		if !ok {
			continue
		}
		if waiting {
			if strings.TrimSpace(text) == criuWaits {
				continue
			}
			waiting, last = false, ms
		}
		marks := criuMarks[phases[0]]
		for i := next; i < len(marks); i++ {
			if !strings.Contains(text, marks[i].text) {
				continue
			}
			spans[phases[0]] = append(spans[phases[0]], phase{Name: marks[i].ends, MS: ms - last, Within: true})
			last, next = ms, i+1
			if next == len(marks) {
				phases, next, waiting = phases[1:], 0, true
			}
			break
		}
	}
	return spans
}

// stamp splits "(00.012345) text", or "(00.012345) pid: text", into milliseconds and the text.
func stamp(line string) (ms float64, text string, ok bool) {
	i := strings.IndexByte(line, '(')
	j := strings.IndexByte(line, ')')
	if i < 0 || j < i {
		return 0, "", false
	}
	seconds, err := strconv.ParseFloat(strings.TrimSpace(line[i+1:j]), 64)
	return seconds * 1000, line[j+1:], err == nil
}

// bootPhases boots a trivial container that goes on, and notes where the time to its start went.
func (b *bench) bootPhases(ctx context.Context) error {
	id := b.id("phases")
	l, err := measure.Run(ctx, b.node, measure.Start{
		ID: id, Command: []string{"run", "--detach", "--runtime", harness.Runtime, busyboxImage, id, "/bin/sleep", "1000"},
		Answer: func(ctx context.Context, _ int) error {
			r, err := b.node.Client().TaskService().Get(ctx, &tasks.GetRequest{ContainerID: id})
			if err == nil && r.GetProcess().GetStatus() != tasktypes.Status_RUNNING {
				err = fmt.Errorf("it is %s", r.GetProcess().GetStatus())
			}
			return err
		},
	})
	if err != nil {
		return err
	}
	var r checkpoint.Start
	// The record is kept a moment after the program runs.
	err = measure.Poll(ctx, func() (bool, error) {
		r, err = measure.Explain(ctx, b.node, id)
		return err == nil && r.PID != 0, nil
	})
	if err == nil {
		b.addPhases("trivial container, booted", split(l, r, ""))
	}
	return errors.Join(err, b.remove(ctx, id))
}

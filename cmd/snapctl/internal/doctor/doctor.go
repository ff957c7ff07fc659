// Package doctor checks whether this node can capture and restore, and says what to do
// about what is wrong.
//
// It changes nothing. What the node is like is read first (Probe) and judged
// apart from that, so that every judgement can be tested on any node. It has no state
// and no locks.
package doctor

import (
	"context"
	"fmt"
	"io"

	"github.com/containerd-snap/snap/cmd/snapctl/internal/human"
)

// Level says how bad a finding is.
type Level string

// The levels of findings.
const (
	// OK is as it should be.
	OK Level = "ok"
	// Warning costs time or concerns some checkpoints only.
	Warning Level = "warning"
	// Problem prevents capture or restore.
	Problem Level = "problem"
)

var marks = map[Level]string{OK: "✓", Warning: "!", Problem: "✗"}

// Check is one finding.
type Check struct {
	// Name says what was looked at; several findings may share one.
	Name  string `json:"name"`
	Level Level  `json:"level"`
	// Detail is what was found.
	Detail string `json:"detail"`
	// Remedy is what to do about it; empty for OK.
	Remedy string `json:"remedy,omitempty"`
}

// Result is all that was found.
type Result struct {
	// OK says that there is no Problem.
	OK     bool    `json:"ok"`
	Checks []Check `json:"checks"`
}

// Options say what to check.
type Options struct {
	// Root is the store's directory.
	Root string
	// Verify reads page data as well.
	Verify bool
	// Progress, if not nil, is told of a checkpoint that is verified how many bytes
	// of how many were read.
	Progress func(ref string, done, total int64)
}

// Run judges the node and its store. The error is that of ctx, if it ended before all
// was checked.
func Run(ctx context.Context, node Node, opts Options) (Result, error) {
	checks := node.checks()
	if node.UID == 0 {
		more, err := storeChecks(ctx, node, opts)
		if err != nil {
			return Result{}, err
		}
		checks = append(checks, more...)
	}
	r := Result{OK: true, Checks: checks}
	for _, c := range checks {
		r.OK = r.OK && c.Level != Problem
	}
	return r, nil
}

// Write writes the findings for people, a line each and a remedy below it.
func (r Result) Write(w io.Writer) error {
	for _, c := range r.Checks {
		if _, err := fmt.Fprintf(w, "%s %-15s %s\n", marks[c.Level], c.Name, human.Text(c.Detail)); err != nil {
			return err
		}
		if c.Remedy != "" {
			fmt.Fprintf(w, "  %-15s → %s\n", "", human.Text(c.Remedy))
		}
	}
	return nil
}

// Count returns the number of findings of a level.
func (r Result) Count(l Level) int {
	n := 0
	for _, c := range r.Checks {
		if c.Level == l {
			n++
		}
	}
	return n
}

func ok(name, format string, args ...any) Check {
	return Check{Name: name, Level: OK, Detail: fmt.Sprintf(format, args...)}
}

func warning(name, remedy, format string, args ...any) Check {
	return Check{Name: name, Level: Warning, Detail: fmt.Sprintf(format, args...), Remedy: remedy}
}

func problem(name, remedy, format string, args ...any) Check {
	return Check{Name: name, Level: Problem, Detail: fmt.Sprintf(format, args...), Remedy: remedy}
}

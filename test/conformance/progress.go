package main

import (
	"fmt"
	"strings"
	"time"
)

// progress prints how far a run of the suite is: each test that does not pass,
// and a line now and then.
type progress struct {
	label         string
	all, n, other int
	began, last   time.Time
}

// progressInterval is the time between two lines.
const progressInterval = 10 * time.Second

func newProgress(label string, all int) *progress {
	p := &progress{label: label, all: all, began: time.Now()}
	p.print()
	return p
}

func (p *progress) ended(name string, o outcome) {
	if o != pass {
		fmt.Printf("%s: %s %s\n", p.label, o, name)
	}
	if strings.Contains(name, "/") {
		return
	}
	p.n++
	if o != pass {
		p.other++
	}
	if time.Since(p.last) > progressInterval {
		p.print()
	}
}

// done prints the last line.
func (p *progress) done() { p.print() }

func (p *progress) print() {
	p.last = time.Now()
	fmt.Printf("%s: %d of %d tests, %d failed or skipped, %.0f s\n", p.label, p.n, p.all, p.other, time.Since(p.began).Seconds())
}

package probe

import (
	"context"
	"errors"
	"regexp"
	"sync"
)

// maxLine is how much of one line is looked at, in bytes.
const maxLine = 64 << 10

// Output looks for a line among what a program prints. It is given every byte, from
// the first on, by those who copy them, and forgets them at the end of each line.
type Output struct {
	re *regexp.Regexp
	// found is closed when a line matches.
	found chan struct{}

	// mu guards the fields below.
	mu    sync.Mutex
	done  bool
	lines [2][]byte
}

// NewOutput looks for a line that the expression matches.
func NewOutput(expression string) (*Output, error) {
	re, err := regexp.Compile(expression)
	if err != nil {
		return nil, err
	}
	return &Output{re: re, found: make(chan struct{})}, nil
}

// Watch takes what was printed on stdout (0) or stderr (1). A line counts as soon as it
// matches, ended or not: a prompt is never ended.
func (o *Output) Watch(stream int, p []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	line := o.lines[stream]
	for !o.done && len(p) > 0 {
		n, ended := len(p), false
		for i, b := range p {
			if b == '\n' {
				n, ended = i, true
				break
			}
		}
		line = append(line, p[:min(n, maxLine-len(line))]...)
		if o.re.Match(line) {
			o.done = true
			o.lines = [2][]byte{}
			close(o.found)
			return
		}
		if ended {
			line, n = line[:0], n+1
		}
		p = p[n:]
	}
	o.lines[stream] = line
}

var errNotPrinted = errors.New("it has not printed such a line")

func (o *Output) wait(ctx context.Context) error {
	if o == nil {
		return errors.New("its output does not pass through the shim")
	}
	select {
	case <-o.found:
		return nil
	case <-ctx.Done():
		return errNotPrinted
	}
}

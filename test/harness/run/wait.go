package run

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// Context returns a context that ends with the test, and after the deadline.
func Context(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), Deadline)
	t.Cleanup(cancel)
	return ctx
}

// Eventually calls check until it returns nil, and fails after the deadline.
func Eventually(t *testing.T, check func() error) {
	t.Helper()
	ctx := Context(t)
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal(err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Output collects what a process writes.
type Output struct {
	// mu guards b.
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// WaitFor waits until the output holds text.
func (o *Output) WaitFor(t *testing.T, text string) {
	t.Helper()
	Eventually(t, func() error {
		if out := o.String(); !strings.Contains(out, text) {
			return fmt.Errorf("the output lacks %q: %q", text, out)
		}
		return nil
	})
}

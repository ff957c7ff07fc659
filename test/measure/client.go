package measure

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/containerd-snap/snap/test/harness"
)

const (
	// Impatient is how long the first connection is waited for: long for the
	// loopback, and short beside what is measured. While CRIU restores a task it may
	// drop packets, and an attempt to connect that waits for its repetition, a
	// second later, would be measured instead.
	Impatient = 10 * time.Millisecond
	// Patient bounds any answer. A program that is being captured takes its time.
	Patient = time.Minute
)

// Client asks what listens on address in the network namespace of process pid, each time
// over a new connection. An attempt to connect ends after patience.
func Client(pid int, address string, patience time.Duration) *http.Client {
	return &http.Client{
		Timeout: Patient,
		Transport: &http.Transport{
			DisableKeepAlives: true, // an idle connection would be part of the capture
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				ctx, cancel := context.WithTimeout(ctx, patience)
				defer cancel()
				return harness.DialIn(ctx, pid, address)
			},
		},
	}
}

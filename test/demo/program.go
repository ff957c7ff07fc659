package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/containerd-snap/snap/test/harness"
)

// address is where the program answers, in its own network namespace.
const address = "127.0.0.1:8000"

const (
	// impatient is how long the first connection is waited for: long for the
	// loopback, and short beside what is measured. While CRIU restores a task it may
	// drop packets, and an attempt to connect that waits for its repetition, a
	// second later, would be measured instead.
	impatient = 10 * time.Millisecond
	// patient bounds any answer. A program that is being captured takes its time.
	patient = time.Minute
)

// answer is what the program says of itself; see app/srv/search/server.py.
type answer struct {
	// BootID is random, made when the program boots.
	BootID string `json:"boot_id"`
	// Counter is the number of answers in this life of the program.
	Counter   int     `json:"counter"`
	Documents int     `json:"documents"`
	Words     int     `json:"words"`
	RSSMB     float64 `json:"rss_mb"`
	// Result is the result of a query, with a checksum of the whole index: every
	// life of the program finds the same.
	Result json.RawMessage `json:"answer"`
}

// program is the program, running as a task.
type program struct{ http *http.Client }

// connect returns the program that runs in the network namespace of process pid.
// An attempt to connect ends after patience.
func connect(pid int, patience time.Duration) *program {
	return &program{&http.Client{
		Timeout: patient,
		Transport: &http.Transport{
			DisableKeepAlives: true, // an idle connection would be part of the capture
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				ctx, cancel := context.WithTimeout(ctx, patience)
				defer cancel()
				return harness.DialIn(ctx, pid, address)
			},
		},
	}}
}

// ask asks once.
func (p *program) ask(ctx context.Context) (answer, error) {
	var a answer
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/", http.NoBody)
	if err != nil {
		return a, err
	}
	res, err := p.http.Do(req)
	if err != nil {
		return a, fmt.Errorf("ask the program: %w", err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return a, fmt.Errorf("ask the program: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		return a, fmt.Errorf("ask the program: status %s", res.Status)
	}
	if err := json.Unmarshal(body, &a); err != nil {
		return a, fmt.Errorf("understand the program's answer %.200q: %w", body, err)
	}
	return a, nil
}

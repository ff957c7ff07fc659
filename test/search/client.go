package search

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/containerd-snap/snap/test/measure"
)

// Address is where the program answers, in its own network namespace.
const Address = "127.0.0.1:8000"

// Answer is what the program says of itself; see srv/search/server.py.
type Answer struct {
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

// Program is the program, running as a task.
type Program struct{ HTTP *http.Client }

// Connect returns the program that runs in the network namespace of process pid.
// An attempt to connect ends after patience.
func Connect(pid int, patience time.Duration) *Program {
	return &Program{measure.Client(pid, Address, patience)}
}

// Ask asks once.
func (p *Program) Ask(ctx context.Context) (Answer, error) {
	var a Answer
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+Address+"/", http.NoBody)
	if err != nil {
		return a, err
	}
	res, err := p.HTTP.Do(req)
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

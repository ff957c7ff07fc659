package run

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

// Usage is what a process takes, in bytes (proc(5), smaps_rollup).
type Usage struct {
	RSS     int64 `json:"rss_bytes"`
	PSS     int64 `json:"pss_bytes"`
	Private int64 `json:"private_bytes"`
	Shared  int64 `json:"shared_bytes"`
	// Anonymous is what was written.
	Anonymous int64 `json:"anonymous_bytes"`
}

// UsageOf reads what a process takes now.
func UsageOf(t *testing.T, pid int) Usage {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	var u Usage
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(line, ":")
		kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			continue
		}
		switch key {
		case "Rss":
			u.RSS += kb << 10
		case "Pss":
			u.PSS += kb << 10
		case "Private_Clean", "Private_Dirty":
			u.Private += kb << 10
		case "Shared_Clean", "Shared_Dirty":
			u.Shared += kb << 10
		case "Anonymous":
			u.Anonymous = kb << 10
		}
	}
	return u
}

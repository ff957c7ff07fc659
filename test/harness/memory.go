package harness

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Memory is what a process holds, in bytes (proc_pid_smaps(5), smaps_rollup).
type Memory struct {
	RSS int64 `json:"rss_bytes"`
	// PSS counts a page that N processes share as 1/N.
	PSS int64 `json:"pss_bytes"`
	// Private and Shared are the pages that no other process maps, and those that one does.
	Private int64 `json:"private_bytes"`
	Shared  int64 `json:"shared_bytes"`
	// Anonymous are pages of no file, or of a file and written to.
	Anonymous int64 `json:"anonymous_bytes"`
}

// ReadMemory tells what a process holds.
func ReadMemory(pid int) (Memory, error) {
	name := fmt.Sprintf("/proc/%d/smaps_rollup", pid)
	data, err := os.ReadFile(name)
	if err != nil {
		return Memory{}, err
	}
	var m Memory
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(line, ":")
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			continue // the line that names the range
		}
		m.add(key, kib<<10)
	}
	if m.PSS == 0 {
		return m, fmt.Errorf("read %s: the process has no memory", name)
	}
	return m, nil
}

func (m *Memory) add(key string, bytes int64) {
	switch key {
	case "Rss":
		m.RSS += bytes
	case "Pss":
		m.PSS += bytes
	case "Private_Clean", "Private_Dirty":
		m.Private += bytes
	case "Shared_Clean", "Shared_Dirty":
		m.Shared += bytes
	case "Anonymous":
		m.Anonymous += bytes
	}
}

// Plus adds what another process holds.
func (m Memory) Plus(o Memory) Memory {
	return Memory{m.RSS + o.RSS, m.PSS + o.PSS, m.Private + o.Private, m.Shared + o.Shared, m.Anonymous + o.Anonymous}
}

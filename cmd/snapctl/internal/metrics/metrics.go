// Package metrics writes what is counted on a node, and what its store holds, in
// Prometheus' text format. docs/metrics.md lists the metrics. It has no state and no locks.
package metrics

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/retain"
	"github.com/containerd-snap/snap/checkpoint/store"
	"github.com/containerd-snap/snap/checkpoint/tally"
)

// Node is what there is to tell.
type Node struct {
	Version string
	Tally   tally.Tally
	Entries []checkpoint.Entry
	// Damaged is the number of checkpoints beside Entries that cannot be read.
	Damaged int
	// FreeBytes is the room on the store's file system, LimitBytes limits.max_bytes.
	FreeBytes, LimitBytes int64
}

// Read gathers it from a store.
func Read(st *store.Store, version string, limits retain.Limits) (Node, error) {
	n := Node{Version: version, Tally: st.Tally(), LimitBytes: limits.MaxBytes}
	var err error
	if n.Entries, err = st.List(); err != nil {
		return n, err
	}
	damaged, err := st.Damaged()
	if err != nil {
		return n, err
	}
	n.Damaged = len(damaged)
	n.FreeBytes, err = st.Room()
	return n, err
}

// Write writes the metrics.
func Write(out io.Writer, n Node) error {
	w := &writer{}
	w.metric("snap_build_info", "gauge", "The version of snapctl that wrote this, as a label.")
	w.sample("snap_build_info", labels{{"version", n.Version}}, "1")
	w.tally(&n.Tally)
	w.store(&n)
	_, err := io.WriteString(out, w.text.String())
	return err
}

// WriteFile writes the metrics to a file in one step: node_exporter never reads half of
// it, nor the temporary file beside it, whose name does not end in .prom.
func WriteFile(path string, n Node) (retErr error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return fmt.Errorf("write metrics: %w", err)
	}
	defer func() {
		if retErr != nil {
			f.Close()
			os.Remove(f.Name())
			retErr = fmt.Errorf("write metrics to %s: %w", path, retErr)
		}
	}()
	if err := Write(f, n); err != nil {
		return err
	}
	// The collector is seldom root.
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func (w *writer) tally(t *tally.Tally) {
	w.metric("snap_starts_total", "counter", "Starts of containers by what was decided, why, and what became of it.")
	for _, s := range slices.SortedFunc(maps.Keys(t.Starts), func(a, b tally.Start) int {
		return cmp.Or(cmp.Compare(a.Decision, b.Decision), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Outcome, b.Outcome))
	}) {
		decision := cmp.Or(string(s.Decision), "none")
		w.count("snap_starts_total", labels{{"decision", decision}, {"reason", string(s.Reason)}, {"outcome", string(s.Outcome)}}, t.Starts[s])
	}
	w.metric("snap_start_seconds", "histogram", "Time that starts took in the shim, from Create to running, without the caller's time between Create and Start.")
	for _, o := range tally.Outcomes {
		h := t.StartTimes[o]
		if h == nil {
			h = new(tally.Histogram)
		}
		w.histogram("snap_start_seconds", labels{{"outcome", string(o)}}, h)
	}
	w.metric("snap_captures_total", "counter", "Captures by kind of checkpoint and result.")
	for _, kind := range tally.Kinds {
		for _, result := range tally.Results {
			w.count("snap_captures_total", labels{{"kind", kindLabel(kind)}, {"result", string(result)}}, t.Captures[tally.Capture{Kind: kind, Result: result}])
		}
	}
	w.metric("snap_capture_seconds", "histogram", "Time that successful captures took, until the checkpoint was registered.")
	w.histogram("snap_capture_seconds", nil, &t.CaptureTimes)
	w.metric("snap_capture_pause_seconds", "histogram", "Time that programs stood still for successful captures.")
	w.histogram("snap_capture_pause_seconds", nil, &t.PauseTimes)
	w.metric("snap_quarantined_total", "counter", "Checkpoints that were quarantined after repeated failed restores.")
	w.count("snap_quarantined_total", nil, t.Quarantined)
	w.metric("snap_pruned_total", "counter", "Checkpoints removed for a budget, by cause.")
	for _, cause := range retain.Causes {
		w.count("snap_pruned_total", labels{{"cause", string(cause)}}, t.Pruned[cause])
	}
	w.metric("snap_pruned_bytes_total", "counter", "Bytes of checkpoints removed for a budget.")
	w.count("snap_pruned_bytes_total", nil, t.PrunedBytes)
}

func (w *writer) store(n *Node) {
	checkpoints, bytes := map[checkpoint.Kind]int64{}, map[checkpoint.Kind]int64{}
	var pinned, quarantined int64
	var usage checkpoint.Usage
	for _, e := range n.Entries {
		kind := cmp.Or(e.Checkpoint.Kind, checkpoint.Template)
		checkpoints[kind]++
		bytes[kind] += usage.Add(&e.Checkpoint)
		if e.State.Pinned {
			pinned++
		}
		if e.State.Quarantined() {
			quarantined++
		}
	}
	for _, g := range []struct {
		name, help string
		values     map[checkpoint.Kind]int64
	}{
		{"snap_store_checkpoints", "Registered checkpoints by kind.", checkpoints},
		{"snap_store_bytes", "Size of registered checkpoints by kind, what several share counted once.", bytes},
	} {
		w.metric(g.name, "gauge", g.help)
		for _, kind := range tally.Kinds {
			w.count(g.name, labels{{"kind", kindLabel(kind)}}, g.values[kind])
		}
	}
	for _, g := range []struct {
		name, help string
		value      int64
	}{
		{"snap_store_pinned", "Pinned checkpoints.", pinned},
		{"snap_store_quarantined", "Checkpoints that are quarantined now.", quarantined},
		{"snap_store_damaged", "Checkpoints whose manifest cannot be read.", int64(n.Damaged)},
		{"snap_store_free_bytes", "Room on the store's file system.", n.FreeBytes},
		{"snap_store_limit_bytes", "The budget limits.max_bytes; 0 is no limit.", n.LimitBytes},
	} {
		w.metric(g.name, "gauge", g.help)
		w.count(g.name, nil, g.value)
	}
}

// kindLabel is a kind as a label's value, spelt as the other values are.
func kindLabel(k checkpoint.Kind) string { return strings.ReplaceAll(string(k), "-", "_") }

// labels are pairs of a name and a value.
type labels [][2]string

// writer writes the text format; see the exposition formats of Prometheus.
type writer struct {
	text strings.Builder
}

func (w *writer) metric(name, kind, help string) {
	fmt.Fprintf(&w.text, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

// escape writes a label's value as the format has it.
var escape = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

func (w *writer) sample(name string, l labels, value string) {
	w.text.WriteString(name)
	for i, pair := range l {
		sep := ","
		if i == 0 {
			sep = "{"
		}
		fmt.Fprintf(&w.text, `%s%s="%s"`, sep, pair[0], escape.Replace(strings.ToValidUTF8(pair[1], "?")))
	}
	if len(l) > 0 {
		w.text.WriteString("}")
	}
	w.text.WriteString(" " + value + "\n")
}

func (w *writer) count(name string, l labels, n int64) {
	w.sample(name, l, strconv.FormatInt(n, 10))
}

func (w *writer) histogram(name string, l labels, h *tally.Histogram) {
	var sum int64
	for i, bound := range tally.Bounds {
		if i < len(h.Buckets) {
			sum += h.Buckets[i]
		}
		w.count(name+"_bucket", append(slices.Clone(l), [2]string{"le", seconds(bound)}), sum)
	}
	w.count(name+"_bucket", append(slices.Clone(l), [2]string{"le", "+Inf"}), h.Count)
	w.sample(name+"_sum", l, seconds(h.Sum))
	w.count(name+"_count", l, h.Count)
}

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) }
